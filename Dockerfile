# The image: opsctl, the programs of PostgreSQL that it calls, and a user who is not root.
#
#   docker build --tag opsctl .
#   docker build --tag opsctl --build-arg POSTGRESQL="17 18" .              those majors only: of each server that it dumps
#   docker build --tag opsctl --build-arg POSTGRESQL=17 --build-arg SERVER=yes .    with the server, for restore tests
#
# scripts/test-image.sh carries the last stage out, step by step, in a chroot.
ARG DEBIAN=bookworm
ARG RUST=1

FROM rust:${RUST}-slim-${DEBIAN} AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release

FROM debian:${DEBIAN}-slim
ARG POSTGRESQL="14 15 16 17 18"
ARG SERVER=

# Majors that the distribution does not have come from PostgreSQL's own repository, which the script of postgresql-common adds.
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    packages=; \
    for major in $POSTGRESQL; do \
        packages="$packages postgresql-client-$major"; \
        if [ -n "$SERVER" ]; then packages="$packages postgresql-$major"; fi; \
    done; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates tzdata; \
    if ! apt-cache show $packages >/dev/null 2>&1; then \
        apt-get install -y --no-install-recommends postgresql-common; \
        /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y; \
    fi; \
    mkdir -p /etc/postgresql-common/createcluster.d; \
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/image.conf; \
    apt-get install -y --no-install-recommends $packages; \
    rm -rf /var/lib/apt/lists/*

# The number is the one that the manifests of `opsctl schedule print --format kubernetes` run as.
RUN groupadd --gid 10001 opsctl \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/opsctl --no-create-home --shell /usr/sbin/nologin opsctl \
    && install -d -o opsctl -g opsctl -m 0750 /var/lib/opsctl

COPY --from=build /src/target/release/opsctl /usr/local/bin/opsctl

ENV OPSCTL_STATE_DIR=/var/lib/opsctl
USER 10001:10001
WORKDIR /var/lib/opsctl
ENTRYPOINT ["opsctl"]
CMD ["--help"]

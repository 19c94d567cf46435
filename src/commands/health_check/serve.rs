//! `opsctl health-check serve`: the answers over HTTP, until it is told to stop.

use std::net::TcpListener;
use std::time::Instant;

use anyhow::Context as _;

use crate::cli::{HealthCheckArgs, ServeArgs};
use crate::commands::{Answered, Context};
use crate::config::Overrides;
use crate::exit::{Exit, Failure};
use crate::health::endpoint::{self, Policy, Questions};
use crate::health::format::Report;
use crate::health::kind::Profile;
use crate::secret::Secret;

/// What has the token, where no file does.
const TOKEN: &str = "OPSCTL_HEALTH_TOKEN";
/// By these it may be called on the machine itself.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

pub(super) fn run(
    context: &Context,
    args: &HealthCheckArgs,
    serve: &ServeArgs,
) -> anyhow::Result<Answered> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    // What is wrong with the command line or the configuration is said now, and not at the first request.
    super::selected(context, args, &config, Profile::Full, context.now)?;
    let limit = context.global.timeout.unwrap_or(config.health.timeout);
    let policy = Policy {
        hosts: LOCAL.map(str::to_owned).into_iter().chain(serve.allow_host.clone()).collect(),
        token: token(context, serve)?,
    };
    let listener = TcpListener::bind(serve.listen)
        .with_context(|| format!("`{}` cannot be listened on", serve.listen))?;
    let address = listener.local_addr().unwrap_or(serve.listen);
    if policy.token.is_none() && !address.ip().is_loopback() {
        tracing::warn!("without a token everybody who reaches {address} sees all metrics");
    }
    let listening_since = Instant::now();
    let ask = |profile: Profile| {
        // It may serve for months: ages and windows are of each request. A stated time goes on from there.
        let stated = context.global.now.map(|now| now + listening_since.elapsed());
        let (at, began) = (stated.unwrap_or_else(crate::clock::now), Instant::now());
        let inquiries = super::selected(context, args, &config, profile, at)?;
        let answers = crate::health::run::run(inquiries, limit, &context.stop);
        let (run, seconds) = (context.run.to_string(), began.elapsed().as_secs_f64());
        Ok(Report::new(answers, run, at, seconds, profile))
    };
    tracing::info!("listening on http://{address}");
    std::thread::scope(|scope| {
        let (ready, answering) = endpoint::answering(Profile::Ready, serve.max_age, &ask);
        scope.spawn(answering);
        let (metrics, answering) = endpoint::answering(Profile::Full, serve.max_age, &ask);
        scope.spawn(answering);
        endpoint::serve(listener, policy, &Questions { ready, metrics }, &context.stop)
    })
    .context("serving ended")?;
    Ok(Answered { status: 0, stdout: String::new(), error: None })
}

/// Returns the token, from its file or from the environment.
fn token(context: &Context, serve: &ServeArgs) -> anyhow::Result<Option<Secret>> {
    let text = match &serve.token_file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("the token in `{}` cannot be read", path.display()))?,
        None => match context.environment.get(TOKEN) {
            Some(text) => text.to_owned(),
            None => return Ok(None),
        },
    };
    let text = text.trim();
    if text.len() < 16 {
        let message = "the token is shorter than 16 characters";
        let hint = "Make one with `openssl rand -hex 32`.";
        return Err(Failure::new(Exit::Configuration, message).hint(hint).into());
    }
    Ok(Some(Secret::new(text)))
}

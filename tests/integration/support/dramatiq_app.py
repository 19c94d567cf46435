"""A program of Dramatiq, for tests: real messages, delayed ones, dead letters, and a worker.

    dramatiq_app.py BROKER_URL QUEUE send N      N messages that nobody fetches yet
    dramatiq_app.py BROKER_URL QUEUE delay N     N messages for the day after tomorrow
    dramatiq_app.py BROKER_URL QUEUE die N       N messages that fail, and the worker that gives them up
    dramatiq_app.py BROKER_URL QUEUE work        a worker whose first message takes until standard input ends

`work` says `ready` when its message has begun.
"""

import logging
import sys
import threading
import time

import dramatiq

url, queue, action, *rest = sys.argv[1:]
count = int(rest[0]) if rest else 0
# Messages that fail are meant to.
logging.disable(logging.CRITICAL)
if url.startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=url)
dramatiq.set_broker(broker)
begun, over, failed = threading.Event(), threading.Event(), threading.Semaphore(0)


class Count(dramatiq.Middleware):
    def after_nack(self, broker, message):
        failed.release()


broker.add_middleware(Count())


@dramatiq.actor(queue_name=queue, max_retries=0)
def obey(order):
    if order == "die":
        raise RuntimeError("as told")
    if order == "wait":
        begun.set()
        over.wait()


if action == "send":
    for _ in range(count):
        obey.send("nothing")
elif action == "delay":
    for _ in range(count):
        obey.send_with_options(args=("nothing",), delay=2 * 86_400_000)
else:
    worker = dramatiq.Worker(broker, queues={queue}, worker_threads=1, worker_timeout=100)
    worker.start()
    if action == "die":
        for _ in range(count):
            obey.send("die")
        for _ in range(count):
            assert failed.acquire(timeout=60), "a message was not given up"
    else:
        obey.send("wait")
        assert begun.wait(60), "the message did not begin"
        print("ready", flush=True)
        sys.stdin.read()
        over.set()
    worker.stop()
broker.close()

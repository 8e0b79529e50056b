"""Servers of objects on loopback, with a bucket of their own: S3, and what Google's libraries call an emulator."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

#: Keys that the server takes; any would do.
KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_DEFAULT_REGION": "eu-central-1"}


@dataclass(frozen=True)
class Bucket:
    """A bucket, and the variables by which processes find its server."""

    uri: str
    environment: Mapping[str, str]


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    """Serves a bucket while the block runs."""
    name = f"runs-{uuid.uuid4().hex[:8]}"  # all servers of a process have the same buckets
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": KEYS["AWS_DEFAULT_REGION"]})
        yield Bucket(f"s3://{name}", {**KEYS, "AWS_ENDPOINT_URL": address})
    finally:
        server.stop()


@contextmanager
def gs_bucket(name: str = "runs") -> Iterator[Bucket]:
    """Serves a bucket as Google does while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    with create_server("127.0.0.1", port, in_memory=True, default_bucket=name):
        yield Bucket(f"gs://{name}", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"})

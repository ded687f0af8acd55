"""The variables of the driver that workers on other nodes get: addresses, and nothing of a user."""

from __future__ import annotations

import json

import pytest

from tasks.pools.forwarding import forwarded

OF_THE_NODE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "FSSPEC_CONFIG_DIR",
    "FSSPEC_S3_KEY",
    "FSSPEC_S3_PROFILE",
    "FSSPEC_S3_SECRET",
    "FSSPEC_GCS_TOKEN",
    "FSSPEC_ABFS_CONNECTION_STRING",
    "HOME",
    "PATH",
    "SSL_CERT_FILE",
)
ADDRESSES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "FSSPEC_S3_ENDPOINT_URL",
    "FSSPEC_S3_region",
    "DO_NOT_TRACK",
    "DISTILL_DECODERS",
    "DISTILL_RESIDENT_BYTES",
    "DISTILL_PACK_CACHE",
    "DISTILL_PACK_CACHE_BYTES",
)


@pytest.mark.parametrize("name", OF_THE_NODE)
def test_what_a_node_has_of_its_own_is_not_overridden(name: str) -> None:
    assert name not in forwarded({name: "laptop"})


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses_and_settings_are_forwarded(name: str) -> None:
    assert forwarded({name: "x"}) == {name: "x", "RAY_USAGE_STATS_ENABLED": "0"}


def test_only_the_addresses_of_a_configuration_of_fsspec_are_forwarded() -> None:
    configured = {
        "key": "AKIAIOSFODNN7EXAMPLE",
        "profile": "laptop",
        "endpoint_url": "http://store:9000",
        "use_ssl": False,
        "client_kwargs": {"region_name": "eu-north-1", "verify": "/home/me/ca.pem"},
        "config_kwargs": {"s3": {"addressing_style": "path"}, "retries": {}},
    }
    given = forwarded({"FSSPEC_S3": json.dumps(configured)})["FSSPEC_S3"]
    assert json.loads(given) == {
        "endpoint_url": "http://store:9000",
        "use_ssl": False,
        "client_kwargs": {"region_name": "eu-north-1"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_S3", "https://user:password@host"),
        ("FSSPEC_GS", '{"endpoint_url": "https://g:h@host"}'),
        ("FSSPEC_S3", '{"secret": "f"}'),
        ("FSSPEC_S3", "not JSON"),
        ("FSSPEC_S3", "[1]"),
    ],
)
def test_an_address_with_credentials_or_without_meaning_is_not_forwarded(
    name: str, value: str
) -> None:
    assert name not in forwarded({name: value})

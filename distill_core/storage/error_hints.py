"""Remedies for the permanent errors of stores, by error code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the machine's role"
_EXPIRED = "The credentials have expired: renew them, then run again; finished shards are kept"
_PERMISSION = "Allow the credentials {action} on this address (policies: deploy/s3 in the sources)"
_REGION = "The bucket is in another region: set AWS_DEFAULT_REGION to it"
_SECRET = "The signature is wrong: check AWS_SECRET_ACCESS_KEY, and that no proxy rewrites requests"

# By S3 error code or name of an exception; a retry does not help with any of these.
HINTS: Mapping[str, str] = MappingProxyType(
    {
        "AccessDenied": _PERMISSION,
        "AllAccessDisabled": _PERMISSION,
        "403": _PERMISSION,  # a HEAD response has no details
        "400": f"{_EXPIRED}. If they have not: {_REGION.lower()}",  # likewise
        "NoSuchBucket": "The bucket does not exist: create it, or correct the address",
        "InvalidBucketName": "Use 3 to 63 lower-case letters, digits, dots and dashes as its name",
        "InvalidAccessKeyId": (
            "This store does not know the access key: check AWS_ACCESS_KEY_ID, and that "
            "AWS_ENDPOINT_URL is the store that issued it"
        ),
        "SignatureDoesNotMatch": _SECRET,
        "ExpiredToken": _EXPIRED,
        "ExpiredTokenException": _EXPIRED,
        "TokenRefreshRequired": _EXPIRED,
        "InvalidToken": "The session token belongs to other credentials: check AWS_SESSION_TOKEN",
        "RequestTimeTooSkewed": (
            "The clock of this machine is wrong by more than 15 minutes: set it, or start its "
            "time service"
        ),
        "AuthorizationHeaderMalformed": _REGION,
        "IllegalLocationConstraintException": _REGION,
        "PermanentRedirect": _REGION,
        "301": _REGION,
        "NoCredentialsError": f"There are no credentials: {_CREDENTIALS}",
        "PartialCredentialsError": f"The credentials are incomplete: {_CREDENTIALS}",
        "NotADirectoryError": "A part of this path is a file: correct the address",
        "ProfileNotFound": "Correct AWS_PROFILE, or add it to the AWS configuration",
    }
)

# Names of permissions where they differ from those of the requests.
_ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "HeadObject": "GetObject",
        "HeadBucket": "ListBucket",
        "ListObjectsV2": "ListBucket",
        "ListObjects": "ListBucket",
        "ListMultipartUploads": "ListBucketMultipartUploads",
        "UploadPart": "PutObject",
        "CreateMultipartUpload": "PutObject",
        "CompleteMultipartUpload": "PutObject",
    }
)


def code_of(error: BaseException) -> str:
    """Return the S3 error code behind an error, or else the name of its innermost class."""
    name = ""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping) and (code := response.get("Error", {}).get("Code")):
            return str(code)
        name = type(cause).__name__
    return name


def hint(error: BaseException) -> str | None:
    """Return the remedy for a permanent error, or None for one that may be temporary."""
    text = HINTS.get(code_of(error))
    return None if text is None else text.format(action=_action(error))


def _action(error: BaseException) -> str:
    names = (getattr(cause, "operation_name", None) for cause in _causes(error))
    request = next((name for name in names if name), None)
    return f"s3:{_ACTIONS.get(request, request)}" if request else "this"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__

"""The keys of private registries: what a secret holds becomes a user name and a password. The only user of botocore."""

from __future__ import annotations

import base64
import re
from typing import Any

from slipway.dsl.errors import InvalidError, NotFoundError

Keys = tuple[tuple[str, str], ...]

PLAIN = ("REGISTRY_USERNAME", "REGISTRY_PASSWORD")
GOOGLE = ("SERVICE_ACCOUNT_JSON",)
AMAZON = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
KINDS = (PLAIN, GOOGLE, AMAZON)
_ECR = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/.*")


def keys_of(auth: Keys, image: str) -> dict[str, str]:
    """What the engine hands to the registry of an image. Asks Amazon where the keys are Amazon's: call in a thread.

    >>> keys_of((("REGISTRY_USERNAME", "a"), ("REGISTRY_PASSWORD", "b")), "x/y:1")
    {'username': 'a', 'password': 'b'}
    """
    values = dict(auth)
    kinds = [kind for kind in KINDS if any(name in values for name in kind)]
    if len(kinds) != 1:
        found = "more than one kind of" if kinds else "no"
        raise InvalidError(
            f"the secret for the image {image} has {found} registry keys: {', '.join(sorted(values)) or 'it is empty'}",
            hint=f"It must have exactly one of: {'; '.join(' and '.join(kind) for kind in KINDS)}.",
        )
    missing = [name for name in kinds[0] if not values.get(name)]
    if missing:
        raise InvalidError(
            f"the secret for the image {image} lacks {' and '.join(missing)}",
            hint=f"It must have {' and '.join(kinds[0])}.",
        )
    if kinds[0] is PLAIN:
        return {"username": values["REGISTRY_USERNAME"], "password": values["REGISTRY_PASSWORD"]}
    if kinds[0] is GOOGLE:
        return {"username": "_json_key", "password": values["SERVICE_ACCOUNT_JSON"]}
    return _amazon(values, image)


def _amazon(values: dict[str, str], image: str) -> dict[str, str]:
    """The password that Amazon gives for twelve hours."""
    match = _ECR.fullmatch(image)
    region = values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION") or (match["region"] if match else "")
    if not region:
        raise InvalidError(
            f"the secret for the image {image} lacks AWS_REGION, and its name has none",
            hint='Add it to the secret: "AWS_REGION": "eu-central-1"',
        )
    try:
        import botocore.config
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise InvalidError(
            f"the image {image} is to be fetched with AWS keys, and the package that can use them is not installed",
            hint="pip install 'slipway[aws]'",
        ) from None
    try:
        client: Any = botocore.session.Session().create_client(
            "ecr",
            region_name=region,
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=values.get("AWS_SESSION_TOKEN") or None,
            config=botocore.config.Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 2}),
        )
        token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise NotFoundError(
            f"Amazon gives no password for the image {image}: {error}", hint="Look at the keys, and at AWS_REGION."
        ) from error
    user, _, password = base64.b64decode(token).decode().partition(":")
    return {"username": user, "password": password}

"""Bodies as the public client sends them (shared/PUBLIC_API, Calls), and what they mean.

Unknown fields are ignored here and only here: the public client sends some that mean nothing to
us. Fields that ask for what this validator cannot give yet are refused, never dropped silently.
"""

import unicodedata
from datetime import datetime, timezone
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from chutes_core.base.errors import Invalid
from chutes_core.base.units import USD_MICROS_PER_USD
from chutes_core.validator.accounts.service import KeyBounds
from chutes_core.validator.catalog.rules import ChuteDraft
from chutes_core.validator.domain.accounts import Action, ObjectType, Scope
from chutes_core.validator.domain.chutes import Cord, Selector
from chutes_core.validator.domain.jobs import JobPort, JobSpec
from chutes_core.wire.model import RecordId

MAX_RAO = 21_000_000 * 1_000_000_000  # all TAO that there will be
Short = Annotated[str, Field(max_length=200)]


def _one_line(text: str) -> str:
    """Refuse control characters: what is shown in lists and logs must not steer a terminal."""
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") for letter in text):
        raise ValueError("the text holds a control character")
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]


class Form(BaseModel):
    """Base of the bodies that users send."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @field_validator("*")
    @classmethod
    def _whole_characters(cls, value: object) -> object:
        """Refuse half a character (a lone surrogate): JSON can write one, UTF-8 cannot."""
        try:
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("the text holds half of a character") from error
        return value


class RegisterForm(Form):
    """POST /users/register."""

    username: Short
    coldkey: Short


class ScopeForm(Form):
    """One scope of a key."""

    object_type: ObjectType
    object_id: Annotated[OneLine, Field(min_length=1, max_length=400)] | None = None
    action: Action | None = None


class KeyForm(Form):
    """POST /api_keys/; a time without an offset is in UTC."""

    name: OneLine = Field(min_length=1, max_length=64)
    admin: bool = False
    scopes: list[ScopeForm] | None = Field(default=None, max_length=100)
    expires_at: datetime | None = None
    budget_rao: int | None = Field(default=None, ge=1, le=MAX_RAO)
    calls_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)

    def to_scopes(self) -> tuple[Scope, ...]:
        """Return the scopes as records."""
        return tuple(Scope(s.object_type, s.object_id, s.action) for s in self.scopes or ())

    def to_bounds(self) -> KeyBounds:
        """Return what the key is bound to."""
        at = self.expires_at
        if at is not None and at.tzinfo is None:
            at = at.replace(tzinfo=timezone.utc)
        return KeyBounds(
            expires_at_s=None if at is None else int(at.timestamp()),
            budget_rao=self.budget_rao,
            calls_per_minute=self.calls_per_minute,
        )


class SelectorForm(Form):
    """A node selector; the price is in US dollars."""

    gpu_count: int = 1
    min_vram_gb_per_gpu: int = 16
    max_hourly_price_per_gpu: Decimal | None = Field(default=None, max_digits=12)
    include: list[Short] | None = Field(default=None, max_length=100)
    exclude: list[Short] | None = Field(default=None, max_length=100)

    def to_selector(self) -> Selector:
        """Return the record."""
        price = self.max_hourly_price_per_gpu
        return Selector(
            gpu_count=self.gpu_count,
            min_vram_gb_per_gpu=self.min_vram_gb_per_gpu,
            max_hourly_price_usd_micros=None if price is None else int(price * USD_MICROS_PER_USD),
            include=tuple(self.include) if self.include else None,
            exclude=tuple(self.exclude or ()),
        )


class CordForm(Form):
    """One cord."""

    function: Short
    path: Short
    method: str = Field(default="POST", max_length=10)
    public_api_path: Short | None = None
    public_api_method: str | None = Field(default=None, max_length=10)
    stream: bool = False
    passthrough: bool = False
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    minimal_input_schema: dict[str, Any] | None = None
    output_content_type: Short | None = None

    def to_cord(self) -> Cord:
        """Return the record."""
        return Cord(
            function=self.function,
            path=self.path,
            method=self.method.upper(),
            public_api_path=self.public_api_path,
            public_api_method=None if not self.public_api_path else self._public_method(),
            stream=self.stream,
            passthrough=self.passthrough,
            input_schema=self.input_schema,
            output_schema=self.output_schema,
            minimal_input_schema=self.minimal_input_schema,
            output_content_type=self.output_content_type,
        )

    def _public_method(self) -> str:
        return (self.public_api_method or "POST").upper()


class PortForm(Form):
    """One port of a job."""

    name: Short
    port: int
    proto: str = Field(default="tcp", max_length=8)


class JobForm(Form):
    """One job that a chute declares."""

    name: Short
    timeout: int | None = None
    upload: bool | None = True
    ports: list[PortForm] | None = Field(default=None, max_length=100)

    def to_spec(self) -> JobSpec:
        """Return the record."""
        return JobSpec(
            name=self.name,
            timeout_s=self.timeout,
            upload=bool(self.upload),
            ports=tuple(JobPort(p.name, p.port, p.proto.lower()) for p in self.ports or ()),
        )


class RunForm(Form):
    """POST /jobs/: run a job of a chute; ``timeout`` (seconds) may only shorten its own."""

    chute: Annotated[str, Field(min_length=1, max_length=400)]
    job: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    timeout: int | None = None


class ChuteForm(Form):
    """POST /chutes/."""

    name: Short
    image: Annotated[str, Field(max_length=400)]
    filename: Short
    ref_str: Short
    code: str
    tagline: OneLine | None = ""
    readme: str | None = ""
    public: bool = False
    standard_template: Short | None = None
    node_selector: SelectorForm = SelectorForm()
    cords: list[CordForm] = Field(default_factory=list, max_length=100)
    jobs: list[JobForm] | None = Field(default=None, max_length=100)
    concurrency: int | None = None
    max_instances: int | None = None
    scaling_threshold: Decimal | None = Field(default=None, max_digits=12)
    shutdown_after_seconds: int | None = None
    allow_external_egress: bool | None = None
    encrypted_fs: bool | None = None
    tee: bool | None = None
    logo_id: RecordId | None = None

    def to_draft(self) -> ChuteDraft:
        """Return what is to be deployed.

        Raises:
            Invalid: ``not_supported``.
        """
        for what, asked in (
            ("tee", self.tee),
            ("encrypted_fs", self.encrypted_fs),
        ):
            if asked:
                raise Invalid("not_supported", f"this validator does not offer {what} yet")
        threshold = Decimal("0.75") if self.scaling_threshold is None else self.scaling_threshold
        return ChuteDraft(
            name=self.name,
            image=self.image,
            filename=self.filename,
            ref_str=self.ref_str,
            code=self.code,
            cords=tuple(cord.to_cord() for cord in self.cords),
            selector=self.node_selector.to_selector(),
            tagline=self.tagline or "",
            readme=self.readme or "",
            public=self.public,
            standard_template=self.standard_template or None,
            concurrency=_or(self.concurrency, 1),
            max_instances=_or(self.max_instances, 1),
            scaling_threshold_percent=int(threshold * 100),
            shutdown_after_s=_or(self.shutdown_after_seconds, 300),
            allow_external_egress=bool(self.allow_external_egress),
            jobs=tuple(job.to_spec() for job in self.jobs or ()),
        )


class SecretForm(Form):
    """POST /secrets/; the value never shows in a log or an error."""

    purpose: Short
    key: Short
    value: SecretStr = Field(max_length=64 * 1024)


class ReportForm(Form):
    """POST /invocations/{id}/report."""

    reason: str = Field(min_length=1, max_length=4_000)


class AliasForm(Form):
    """PUT /aliases/{name}."""

    chutes: Annotated[tuple[Short, ...], Field(max_length=100)]


class ShareForm(Form):
    """POST /chutes/share and /chutes/unshare."""

    chute_id_or_name: Short
    user_id_or_name: Short


def _or(value: int | None, default: int) -> int:
    return default if value is None else value

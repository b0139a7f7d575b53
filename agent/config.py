"""The settings file: one `isthmus.toml`, every key known, secrets only by reference.

Unknown keys, wrong units and missing sections are refused with the place and the fix; nothing falls back silently.
"""

import difflib
import hashlib
import importlib
import pkgutil
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import agent.venues
from agent.domain.amount import parse_units
from agent.domain.errors import ConfigError, NumberError
from agent.engine.world import Rules
from agent.risk.gate import GROUP_DECIMALS
from agent.risk.limits import Limits
from agent.routing.cost import BATCH_GAS
from agent.routing.scorecard import Scoring
from agent.settlement.knobs import Knobs

FILE = "isthmus.toml"
KEYSTORE = "keystore"
CUSTODY = Path(__file__).parent / "keys" / "custody"
GWEI_DECIMALS = 9
FILE_BYTES_MAX = 1 << 20
NAME_MAX = 32
TLS_MODES = ("require", "verify-ca", "verify-full")

Model = TypeVar("Model", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Risk(_Section):
    """Limits of one order, in whole coins as text; bps against the trusted price."""

    order_value_max: dict[str, str] = Field(default={"USDT": "250000"}, description="most of a quote coin in one order")
    order_volume_max: dict[str, str] = Field(default={"ETH": "100"}, description="most of a base coin in one order")
    collar_bps: int = Field(default=100, ge=1, le=5_000, description="how far a limit may lie from the trusted price")
    duplicate_window_s: int = Field(default=5, ge=0, le=3_600, description="the same wish again within it is refused")
    gas_fee_cap_gwei: str = Field(default="200", description="absolute cap of the fee per gas")
    gas_limit_max: int = Field(default=3_000_000, ge=21_000, le=30_000_000)
    orders_in_flight_max: int = Field(default=32, ge=1, le=1_000)

    @field_validator("order_value_max", "order_volume_max")
    @classmethod
    def _amounts(cls, value: dict[str, str]) -> dict[str, str]:
        for group, text in value.items():
            _number(text, GROUP_DECIMALS, group)
        return value

    @field_validator("gas_fee_cap_gwei")
    @classmethod
    def _gwei(cls, value: str) -> str:
        _number(value, GWEI_DECIMALS, "gwei")
        return value


class Execution(_Section):
    slippage_bps: int = Field(default=10, ge=1, le=500, description="how much worse than its quote a child may trade")
    deadline_s: int = Field(default=60, ge=5, le=600, description="how long an on-chain batch may wait for its block")
    gas_tip_gwei: str = Field(default="1", description="priority fee per gas")
    outbid_after_s: int = Field(default=30, ge=2, le=3_600, description="a transaction that waits longer is outbid by 13 %")

    @field_validator("gas_tip_gwei")
    @classmethod
    def _gwei(cls, value: str) -> str:
        _number(value, GWEI_DECIMALS, "gwei")
        return value


class Wallet(_Section):
    """The on-chain key in the keystore: its name there, and where its password is. Other kinds are in `agent/keys/custody`."""

    kind: Literal["keystore"] = "keystore"
    keystore: str
    password: str = Field(description="ask, env:NAME, file:PATH or keyring:SERVICE/NAME")


class PolicyRule(_Section):
    """What the wallet's key may or may not do; the first rule that matches decides. See docs/policy.md.

    `give` and `receive` are symbols of the venues' tokens. Amounts are of the one token in `give`, in whole coins.
    """

    name: str = Field(min_length=1, max_length=64)
    effect: Literal["allow", "deny"]
    acts: tuple[Literal["approve", "permit", "swap", "anchor", "take_back", "transfer", "revoke", "owners"], ...] = Field(
        default=(), strict=False
    )
    venues: tuple[str, ...] = Field(default=(), strict=False)
    give: tuple[str, ...] = Field(default=(), strict=False)
    receive: tuple[str, ...] = Field(default=(), strict=False)
    to: tuple[str, ...] = Field(default=(), strict=False, description="who is paid or made an owner: a treasury's account, or 0x…")
    amount_max: str = Field(default="", description="of one act; empty: no bound")
    window_s: int = Field(default=0, ge=0, le=31 * 86_400)
    window_max: str = Field(default="", description="of all swaps and transfers within window_s together; empty: no bound")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.amount_max or self.window_max) and len(self.give) != 1:
            raise ValueError("an amount is of one token: name exactly one in give")
        if self.effect == "allow" and {"transfer", "owners"} & {*self.acts} and not self.to:
            raise ValueError("a rule that allows transfers or owners names whom they are to; add to = [...]")
        if bool(self.window_s) != bool(self.window_max):
            raise ValueError("window_s and window_max belong together; give both or none")
        if self.effect == "deny" and (self.amount_max or self.window_max):
            raise ValueError("a rule that forbids has no amounts; put a rule that allows up to an amount before it")
        return self


class Reconcile(_Section):
    """How often, how patiently and how far back the journal is held against venues and chains. See docs/reconciliation.md."""

    inflight_check_interval_ms: int = Field(default=2_000, ge=500, le=60_000)
    inflight_check_threshold_ms: int = Field(default=5_000, ge=500, le=60_000)
    inflight_check_retries: int = Field(default=5, ge=1, le=1_000)
    open_check_interval_secs: int = Field(default=5, ge=1, le=3_600)
    open_check_threshold_ms: int = Field(default=5_000, ge=0, le=600_000)
    position_check_interval_secs: int = Field(default=30, ge=1, le=3_600)
    reconciliation_startup_delay_secs: int = Field(default=10, ge=0, le=600)
    filtered_client_order_ids: tuple[str, ...] = Field(default=(), strict=False)
    external_order_claims: tuple[str, ...] = Field(default=(), strict=False)
    allow_overfills: bool = False
    timeout_connection_secs: int = Field(default=60, ge=1, le=3_600)
    timeout_reconciliation_secs: int = Field(default=30, ge=1, le=600)
    timeout_disconnection_secs: int = Field(default=10, ge=1, le=600)


class Scorecard(_Section):
    """How venues are judged by their past, and what routing makes of it. See docs/scorecard.md."""

    is_charged: bool = True
    half_life_s: int = Field(default=1_800, ge=10, le=10**7)
    prior_orders: int = Field(default=20, ge=1, le=10**6)
    prior_markouts: int = Field(default=50, ge=1, le=10**6)
    retry_pips: int = Field(default=200, ge=0, le=50_000)
    charge_pips_max: int = Field(default=5_000, ge=0, le=50_000)
    fault_half_life_orders: float = Field(default=1.5, ge=0.5, le=1_000)
    fault_share_max: float = Field(default=0.55, ge=0.05, le=1)
    ack_ms_max: int = Field(default=5_000, ge=1, le=60_000)
    avoid_s: int = Field(default=30, ge=1, le=86_400)
    avoid_s_max: int = Field(default=900, ge=1, le=86_400)


class Journal(_Section):
    """The desk's journal in PostgreSQL instead of the file, with a lease that lets one agent of the desk write."""

    url: str = Field(description="postgresql://USER@HOST:PORT/DATABASE; other machines want ?sslmode=verify-full")
    password: str = Field(default="", description="env:NAME, file:PATH or keyring:SERVICE/NAME; empty: the server asks for none")
    desk: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,32}$", description="whose journal; empty: the account's")
    lease_s: int = Field(
        default=10, ge=2, le=300, description="an agent that is cut off stops, and another may take over, within it"
    )
    wait_s: int = Field(
        default=15, ge=0, le=86_400, description="how long to wait at start for another agent's lease; a standby: long"
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        try:
            parts, options = urlsplit(value), dict(parse_qsl(urlsplit(value).query))
            has_password = parts.password is not None
        except ValueError:
            raise ValueError("this is no address; write postgresql://USER@HOST:PORT/DATABASE") from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("a PostgreSQL address begins with postgresql://")
        if has_password or any("pass" in name.lower() for name in options):
            raise ValueError("a password does not belong in the address; put a reference to it into journal.password")
        named = ",".join((parts.netloc.rpartition("@")[2], options.get("host", ""), options.get("hostaddr", "")))
        if not all(map(_is_here, named.split(","))) and options.get("sslmode") not in TLS_MODES:
            raise ValueError("another machine is reached over TLS only; add ?sslmode=verify-full (and sslrootcert=PATH)")
        return value


class Settings(_Section):
    account: str = Field(default="main", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="1 to 32 letters, digits, - or _")
    home: str = Field(default=".isthmus", description="journal, keystore and logs; relative to this file")
    durability: Literal["process", "power"] = "process"
    armed: bool = Field(default=False, description="live venues also need `--live` on the command line")
    journal: Journal | None = None
    wallet: dict[str, Any] | None = None
    risk: Risk = Risk()
    execution: Execution = Execution()
    reconcile: Reconcile = Reconcile()
    scorecard: Scorecard = Scorecard()
    policy: tuple[PolicyRule, ...] = Field(default=(), strict=False, max_length=64)
    treasury: dict[str, Any] | None = None
    venues: dict[str, dict[str, Any]] = {}


class Loaded(BaseModel):
    """Settings together with where they came from. `venues` and `wallet` are validated by the `Config` of their own kind."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    settings: Settings
    path: Path
    digest: str
    venues: dict[str, Any]
    wallet: Any = None

    @property
    def home(self) -> Path:
        return (self.path.parent / self.settings.home).resolve()

    @property
    def journal_path(self) -> Path:
        return self.home / "journal.sqlite"

    @property
    def keystore_path(self) -> Path:
        return self.home / "keystore"

    def rules(self, *, live: bool = False) -> Rules:
        """What decisions depend on. Live venues need `armed = true` in the file *and* `live` on the command line."""
        risk, execution = self.settings.risk, self.settings.execution
        limits = Limits(
            {k: parse_units(v, GROUP_DECIMALS, k) for k, v in risk.order_value_max.items()},
            {k: parse_units(v, GROUP_DECIMALS, k) for k, v in risk.order_volume_max.items()},
            risk.collar_bps,
            risk.duplicate_window_s * 10**9,
            parse_units(risk.gas_fee_cap_gwei, GWEI_DECIMALS, "gwei"),
            risk.gas_limit_max,
            orders_in_flight_max=risk.orders_in_flight_max,
            live_armed=live and self.settings.armed,
        )
        tip = parse_units(execution.gas_tip_gwei, GWEI_DECIMALS, "gwei")
        knobs = Knobs(**self.settings.reconcile.model_dump())
        account_gas = max((getattr(section, "account_gas", 0) for section in self.venues.values()), default=0)
        return Rules(
            limits,
            execution.slippage_bps,
            execution.deadline_s,
            tip,
            outbid_after_s=execution.outbid_after_s,
            knobs=knobs,
            scoring=self.scoring(),
            gas_base=BATCH_GAS + account_gas,
        )

    def scoring(self) -> Scoring:
        """How venues are judged; whoever reads the journal with the same settings finds the same cards."""
        return Scoring(**self.settings.scorecard.model_dump())


def load(path: Path, *, with_venues: bool = True) -> Loaded:
    """Read and check a settings file. Raises ConfigError, one line, naming the key and the fix.

    `with_venues` False leaves the adapters alone, which take a second to import: enough for what only reads the journal.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; `isthmus init` writes one") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes: this is no settings file; name another with --config")
    try:
        data = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {_flat(error)}; correct it there") from None
    settings = checked(Settings, data, path.name)
    venues = {}
    for name, section in settings.venues.items() if with_venues else ():
        where = f"{path.name}: venues.{name}"
        if not name.isidentifier() or len(name) > NAME_MAX:
            raise ConfigError(f"{where}: a venue's name is up to {NAME_MAX} letters, digits and _; rename it")
        if "kind" not in section:
            raise ConfigError(f'{where}: kind is missing; add kind = "…", one of {", ".join(venue_kinds())}')
        venues[name] = checked(venue_module(str(section["kind"]), where).Config, section, where)
    _refuse_shared_wallets(venues, path.name)
    wallet = None if settings.wallet is None else wallet_section(settings.wallet, path.name)
    return Loaded(settings=settings, path=path.resolve(), digest=hashlib.sha256(raw).hexdigest(), venues=venues, wallet=wallet)


def _refuse_shared_wallets(venues: Mapping[str, Any], where: str) -> None:
    """A wallet's transactions are numbered on each chain: two venues would take the same numbers, and count the same coins."""
    seen: dict[tuple[int, str], str] = {}
    for name, section in venues.items():
        if hasattr(section, "chain_id"):
            for address in {section.wallet.lower(), getattr(section, "holder", section.wallet).lower()}:
                other = seen.setdefault((section.chain_id, address), name)
                if other != name:
                    raise ConfigError(
                        f"{where}: venues.{name} and venues.{other} share a wallet on one chain; put the pools into one"
                    )


def venue_kinds() -> list[str]:
    """The adapters that exist: every module of `agent/venues`. None of them is imported for this."""
    return sorted(found.name for found in pkgutil.iter_modules(agent.venues.__path__))


def venue_module(kind: str, where: str) -> Any:
    """The adapter whose file has this name: there is no registry."""
    _refuse_unknown(kind, venue_kinds(), where)
    return importlib.import_module(f"agent.venues.{kind}")


def wallet_section(data: Mapping[str, Any], where: str) -> Any:
    """`[wallet]` by its kind: a key in the keystore (`Wallet`), or the `Config` of one that lies elsewhere. Raises ConfigError."""
    kind, where = str(data.get("kind", KEYSTORE)), f"{where}: wallet"
    return checked(Wallet if kind == KEYSTORE else custody_module(kind, where).Config, data, where)


def custody_kinds() -> list[str]:
    """Where a key can lie, beside the keystore: every module of `agent/keys/custody`. None of them is imported for this."""
    return sorted(found.name for found in pkgutil.iter_modules([str(CUSTODY)]))


def custody_module(kind: str, where: str) -> Any:
    """As `venue_module`."""
    _refuse_unknown(kind, [KEYSTORE, *custody_kinds()], where)
    return importlib.import_module(f"agent.keys.custody.{kind}")


def _refuse_unknown(kind: str, kinds: list[str], where: str) -> None:
    if kind not in kinds:
        hint = _meant(kind, kinds) or f"; it is one of {', '.join(kinds)}"
        raise ConfigError(f'{where}: there is no kind "{kind[:40]}"{hint}')


def checked(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """A section by its model. Raises ConfigError, one line, naming the key and the fix."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        first = min(found, key=lambda one: one["type"] != "extra_forbidden")  # what is misspelt explains what is missing
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            hint = _meant(str(first["loc"][-1]), _keys(model)) or "; remove it"
            raise ConfigError(f"{where}: unknown key {place[:80]}{hint}") from None
        if first["type"] == "missing":
            raise ConfigError(f"{where}: {place} is missing; add it") from None
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {place + ': ' if place else ''}{_flat(said)}; correct it") from None


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word[:40], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _keys(model: type[BaseModel]) -> list[str]:
    """The keys of a section and of all sections inside it."""
    found = list(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            found += _keys(inner)
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if typing.get_origin(annotation) is None and isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _is_here(host: str) -> bool:
    """Whether a host of a database address is this machine: nothing, a socket's folder, or loopback with or without a port."""
    name = unquote(host)
    name = name[1:].partition("]")[0] if name.startswith("[") else name if name == "::1" else name.partition(":")[0]
    return name in ("", "localhost", "::1") or name.startswith(("/", "127."))


def _flat(text: object) -> str:
    return " ".join(str(text).split())[:200]


def _number(text: str, decimals: int, what: str) -> None:
    try:
        parse_units(text, decimals, what)
    except NumberError as error:
        raise ValueError(str(error)) from None

"""Cancel every open order of an account, with its key and nothing else: no market rules, no streams, and for Binance no ccxt, which
takes longer to import than the cancelling takes. For `isthmus kill`, which must work when nothing else does.

First one request for each symbol of the settings cancels all that rests there; then the exchange is asked what rests anywhere, and
that is cancelled too, until it answers "nothing", twice. Repeating a cancel does no harm, so what fails is tried again until the
sweep's time is up; a limit of the exchange (429, 418) is obeyed, because whoever goes on is banned. Source: Binance spot API.
"""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from agent.domain.errors import ConfigError, IsthmusError, SignerError, VenueError
from agent.domain.sweep import Sweep, Swept
from agent.ports import RequestKey

API = "https://api.binance.com"
TRY_S = 2.5  # one request; then it is tried again
PAUSE_S = 0.1  # before the second try; doubles with each further one
ROUNDS_MAX = 5
CONNECTIONS_MAX = 8
BODY_BYTES_MAX = 16 << 20
TEXT_MAX = 120
NOTHING_OPEN, TIME_OUTSIDE, NOT_WORKED = -2011, -1021, -20124
ALGO = "algo:"
STOP_S = {429: 60, 418: 300}  # when the exchange does not say how long
BY_HAND = "cancel at the exchange's own site"


class Account(msgspec.Struct, frozen=True):
    """What cancelling needs of a venue's section; whatever else stands there, right or wrong, does not matter now."""

    exchange: str = "binance"
    url: str = ""
    api_key: str = ""
    secret: str = ""
    symbols: tuple[str, ...] = ()
    recv_window_ms: int = 5_000
    request_timeout_ms: int = 5_000


OpenKey = Callable[[Account], Awaitable[RequestKey | None]]


async def cancel_all(name: str, section: Mapping[str, Any], open_key: OpenKey, sweep: Sweep) -> Swept:
    """Never raises what a venue or its settings can cause: the note says what went wrong and what to do instead."""
    tally = Tally(name, is_dry=sweep.is_dry)
    try:
        account = read_account(section)
        key = await open_key(account)
        if key is None:
            return tally.result("no key: this venue is only watched", left=0)
        async with asyncio.timeout_at(sweep.until_ms / 1_000):
            if account.exchange == "binance":
                await _cancel_at_binance(account, key, sweep, tally)
            else:  # half a second of imports, beside the venues that need none
                module = await asyncio.to_thread(importlib.import_module, "agent.venues.ccxt_exchange.cancel_unified")
                await module.cancel_at_others(name, section, key, sweep, tally)
    except TimeoutError:
        return tally.result(f"{tally.trouble or 'no answer'}; time is up: {BY_HAND}, or run it again")
    except (SignerError, ConfigError) as error:
        return tally.result(str(error))
    except IsthmusError as error:
        return tally.result(f"{error}; {BY_HAND}, or run it again")
    return tally.result()


def read_account(section: Mapping[str, Any]) -> Account:
    """Raises ConfigError that names the key."""
    try:
        return msgspec.convert(dict(section), Account)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{error}; correct it in the settings, or {BY_HAND}") from None


class Tally:
    """What a sweep has seen so far. `left` None: not known (any more)."""

    def __init__(self, name: str, *, is_dry: bool = False) -> None:
        self._name, self._is_dry, self._start_s = name, is_dry, time.monotonic()
        self._found: set[str] = set()
        self._cancelled: set[str] = set()
        self._left: int | None = None
        self._ms, self._at_ns = 0, 0
        self.unasked = ""
        self.trouble, self.has_lost = "", False  # has_lost: a cancel had no answer, so more went than was counted

    def cancelled(self, orders: Iterable[str]) -> None:
        """The exchange says that these have been cancelled."""
        before = len(self._cancelled)
        self._cancelled.update(orders)
        self._found |= self._cancelled
        if len(self._cancelled) > before:
            self._left = None

    def resting(self, orders: Iterable[str]) -> None:
        """The exchange says that these, and no others, are open. The first of several equal answers gives the time."""
        seen = set(orders)
        self._found |= seen
        if self._left != len(seen):
            self._left = len(seen)
            self._ms, self._at_ns = round((time.monotonic() - self._start_s) * 1_000), time.time_ns()

    def unsure(self) -> None:
        """Something was sent whose outcome is not known: what was counted before does not hold any more."""
        self._left = None

    def result(self, note: str = "", left: int | None = None) -> Swept:
        left = self._left if left is None else left
        ms = self._ms or round((time.monotonic() - self._start_s) * 1_000)
        if not note and left and not self._is_dry:
            note = f"{self.trouble or 'new orders keep coming'}; {BY_HAND}, or run it again"
        elif not note and self.has_lost:
            note = f"an answer was lost ({self.trouble}): more may have been cancelled than is counted here"
        elif not note:
            note = self.unasked
        at_ns, note = self._at_ns or time.time_ns(), " ".join(note.split())
        return Swept(self._name, len(self._found), len(self._cancelled), left, ms, note, at_ns)


class _RefusedError(VenueError):
    """The exchange answered, and trying again will not change its answer."""


class _Binance:
    """Signed requests until they are answered or time is up. The clock of the exchange is asked for only if it complains."""

    def __init__(self, session: aiohttp.ClientSession, account: Account, key: RequestKey, sweep: Sweep, tally: Tally) -> None:
        self._session, self._account, self._key, self._sweep, self._tally = session, account, key, sweep, tally
        self._url = (account.url or API).rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=min(TRY_S, max(account.request_timeout_ms, 100) / 1_000))
        self._offset_ms = 0
        self._closed_until_s = 0.0

    async def ask(self, verb: str, path: str, **params: str) -> Any:
        """The answer as JSON. Raises _RefusedError, or VenueError when it is not worth waiting any longer."""
        loop, pause_s = asyncio.get_running_loop(), PAUSE_S
        while True:
            wait_s = self._closed_until_s - loop.time()
            if wait_s > 0:  # another request was told to wait: this one waits as well
                self._give_up(loop.time() + wait_s)
                await asyncio.sleep(wait_s)
            trouble = await self._try(verb, path, params)
            if not isinstance(trouble, str):
                return trouble[0]
            self._tally.trouble = trouble
            if self._closed_until_s <= loop.time():
                self._give_up(loop.time() + pause_s)
                await asyncio.sleep(pause_s)
                pause_s *= 2

    async def _try(self, verb: str, path: str, params: Mapping[str, str]) -> str | tuple[Any]:
        """One attempt: the answer, in a tuple, or what was wrong with it."""
        try:
            status, headers, body = await self._send(verb, path, params)
        except TimeoutError:
            return self._lost(verb, "the exchange does not answer in time")
        except aiohttp.InvalidURL:
            raise ConfigError(f"url is not an address; correct it in the settings, or {BY_HAND}") from None
        except (aiohttp.ClientError, OSError) as error:
            return self._lost(verb, f"the exchange cannot be reached ({type(error).__name__})")
        try:
            answer = msgspec.json.decode(body)
        except msgspec.DecodeError:
            answer = None
        if status < 400:
            return self._lost(verb, "an answer that cannot be read") if answer is None else (answer,)
        code = answer.get("code") if isinstance(answer, dict) else 0
        text = f"HTTP {status} {code or ''} {answer.get('msg', '') if isinstance(answer, dict) else ''}"[:TEXT_MAX].strip()
        if status in STOP_S:
            told = headers.get("Retry-After", "")
            seconds = int(told) if told.isascii() and told.isdigit() and len(told) < 9 else STOP_S[status]
            self._closed_until_s = asyncio.get_running_loop().time() + seconds
            return f"the exchange closes its door for {seconds} s (HTTP {status})"
        if status >= 500:
            return self._lost(verb, text)
        if code != TIME_OUTSIDE:
            raise _RefusedError(f"the exchange refuses: {text}", str(code))
        await self._measure_clock()
        return text

    def _lost(self, verb: str, trouble: str) -> str:
        """It may have been carried out all the same."""
        self._tally.has_lost |= verb == "DELETE"
        return trouble

    async def _send(self, verb: str, path: str, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        now_ms = time.time_ns() // 1_000_000 + self._offset_ms
        query = urlencode({**params, "recvWindow": self._account.recv_window_ms, "timestamp": now_ms})
        query += f"&signature={self._key.hmac_sha256_hex(query.encode())}"
        return await self._fetch(verb, f"{path}?{query}", {"X-MBX-APIKEY": self._account.api_key})

    async def _fetch(self, verb: str, target: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        url = URL(self._url + target, encoded=True)  # to the last character what was signed
        async with self._session.request(verb, url, headers=headers, timeout=self._timeout, allow_redirects=False) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise aiohttp.ClientPayloadError("too long an answer")
            return response.status, response.headers, bytes(body)

    async def _measure_clock(self) -> None:
        try:
            _, _, body = await self._fetch("GET", "/api/v3/time", {})
            self._offset_ms = int(msgspec.json.decode(body)["serverTime"]) - time.time_ns() // 1_000_000
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, ValueError, KeyError, TypeError):
            return  # the next attempt says so

    def _give_up(self, then_s: float) -> None:
        """Raises VenueError when the next attempt would come too late."""
        if then_s * 1_000 >= self._sweep.until_ms:
            raise VenueError(self._tally.trouble)


async def _cancel_at_binance(account: Account, key: RequestKey, sweep: Sweep, tally: Tally) -> None:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX), trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        exchange = _Binance(session, account, key, sweep, tally)
        if sweep.is_dry:
            await _resting(exchange, tally)
            return
        done = {symbol.replace("/", "") for symbol in account.symbols}
        await _each(_cancel_symbol(exchange, symbol, tally) for symbol in sorted(done))
        has_settled = False
        for _ in range(ROUNDS_MAX):
            rest = await _resting(exchange, tally)
            fresh = {symbol for symbol, _ in rest} - done
            if not rest:
                if has_settled:
                    return
                has_settled = True
                await asyncio.sleep(sweep.settle_ms / 1_000)
            elif fresh:
                done |= fresh
                await _each(_cancel_symbol(exchange, symbol, tally) for symbol in sorted(fresh))
            else:
                await _each(_cancel_one(exchange, *order, tally) for order in rest)
                await asyncio.sleep(PAUSE_S)
        await _resting(exchange, tally)


async def _resting(exchange: _Binance, tally: Tally) -> list[tuple[str, str]]:
    """(symbol, the exchange's number) of every open order of the account; of what its own TWAP works, the number follows a mark."""
    orders, algos = await asyncio.gather(exchange.ask("GET", "/api/v3/openOrders"), _worked(exchange, tally))
    rest = [*_orders(orders), *algos]
    tally.resting(map("/".join, rest))
    return rest


async def _worked(exchange: _Binance, tally: Tally) -> list[tuple[str, str]]:
    """What the exchange works by its own TWAP. Where the question is refused the sweep goes on, and its note says so."""
    try:
        answer = await exchange.ask("GET", "/sapi/v1/algo/spot/openOrders")
        return [(str(one["symbol"]), f"{ALGO}{one['algoId']}") for one in answer["orders"]]
    except _RefusedError as refusal:
        tally.unasked = f"orders that the exchange works by its own TWAP could not be asked for ({refusal})"
        return []
    except (KeyError, TypeError):
        raise VenueError("the exchange's list of TWAPs cannot be read") from None


async def _cancel_symbol(exchange: _Binance, symbol: str, tally: Tally) -> None:
    await _cancel(exchange, "/api/v3/openOrders", {"symbol": symbol}, tally)


async def _cancel_one(exchange: _Binance, symbol: str, number: str, tally: Tally) -> None:
    if number.startswith(ALGO):
        await _cancel_algo(exchange, symbol, number, tally)
        return
    await _cancel(exchange, "/api/v3/order", {"symbol": symbol, "orderId": number}, tally)


async def _cancel_algo(exchange: _Binance, symbol: str, number: str, tally: Tally) -> None:
    tally.unsure()
    try:
        await exchange.ask("DELETE", "/sapi/v1/algo/spot/order", algoId=number.removeprefix(ALGO))
    except (_RefusedError, SignerError) as refusal:
        if getattr(refusal, "code", "") != str(NOT_WORKED):
            tally.trouble = f"{symbol[:24]}: {refusal}"
        return
    tally.cancelled([f"{symbol}/{number}"])


async def _cancel(exchange: _Binance, path: str, params: Mapping[str, str], tally: Tally) -> None:
    """A refusal of one symbol or order does not end the sweep: what rests afterwards is counted anyway."""
    tally.unsure()
    try:
        answer = await exchange.ask("DELETE", path, **params)
    except (_RefusedError, SignerError) as refusal:
        if getattr(refusal, "code", "") != str(NOTHING_OPEN):
            tally.trouble = f"{params['symbol'][:24]}: {refusal}"
        return
    tally.cancelled(map("/".join, _orders(answer if isinstance(answer, list) else [answer])))


def _orders(answer: Any) -> list[tuple[str, str]]:
    """Orders, and the legs of order lists, by symbol and number. Raises VenueError for an answer that cannot be read."""
    try:
        legs = [leg for one in answer for leg in one.get("orders", (one,))]
        return [(str(leg["symbol"]), str(leg["orderId"])) for leg in legs]
    except (KeyError, TypeError, AttributeError):
        raise VenueError("the exchange's list of orders cannot be read") from None


async def _each(work: Iterable[Awaitable[None]]) -> None:
    """All at once; one that fails does not stop the others, and the look afterwards says what it left."""
    for failure in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(failure, BaseException) and not isinstance(failure, VenueError):
            raise failure

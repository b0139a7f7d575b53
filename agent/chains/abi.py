"""Contract calls in and out of bytes: what is asked of tokens, pools, Permit2 and Multicall3, and why a call was refused.

Source: the contract ABI specification, and the contracts' own interfaces (names in the signatures below).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from agent.chains.rpc import printable
from agent.domain.errors import ChainError

WORD = 32
_REASON_DEPTH_MAX = 4
# What Uniswap's routers and pools, v4's manager, Permit2, AuditAnchor, an EntryPoint and a Roles modifier
# throw. The selector is the first four bytes of the hash.
_ERRORS: Final = (
    "AllowanceExpired(uint256)",
    "BalanceTooLow()",
    "ContractLocked()",
    "CurrencyNotSettled()",
    "DeadlinePassed(uint256)",
    "DeltaNotNegative(address)",
    "DeltaNotPositive(address)",
    "ERC20InsufficientAllowance(address,uint256,uint256)",
    "ERC20InsufficientBalance(address,uint256,uint256)",
    "ETHNotAccepted()",
    "ConditionViolation(uint8,bytes32)",
    "ExcessiveInvalidation()",
    "FailedOp(uint256,string)",
    "FailedOpWithRevert(uint256,string,bytes)",
    "FromAddressIsNotOwner()",
    "InputLengthMismatch()",
    "InsufficientAllowance(uint256)",
    "InsufficientBalance()",
    "InsufficientETH()",
    "InsufficientToken()",
    "InvalidAmount(uint256)",
    "InvalidBips()",
    "InvalidCommandType(uint256)",
    "InvalidContractSignature()",
    "InvalidEthSender()",
    "InvalidNonce()",
    "InvalidPath()",
    "InvalidReserves()",
    "InvalidSignature()",
    "InvalidSignatureLength()",
    "InvalidSigner()",
    "LengthMismatch()",
    "NotRising(uint64,uint64)",
    "ManagerLocked()",
    "ModuleTransactionFailed()",
    "NoMembership()",
    "NotAuthorized(address)",
    "NotPoolManager()",
    "PoolNotInitialized()",
    "PriceLimitAlreadyExceeded(uint160,uint160)",
    "PriceLimitOutOfBounds(uint160)",
    "SafeCastOverflow()",
    "SignatureExpired(uint256)",
    "SliceOutOfBounds()",
    "SwapAmountCannotBeZero()",
    "TransactionDeadlinePassed()",
    "UnsafeCast()",
    "UnsupportedAction(uint256)",
    "V2InvalidPath()",
    "V2TooLittleReceived()",
    "V2TooMuchRequested()",
    "V3InvalidAmountOut()",
    "V3InvalidCaller()",
    "V3InvalidSwap()",
    "V3TooLittleReceived()",
    "V3TooMuchRequested()",
    "V4TooLittleReceived(uint256,uint256)",
    "V4TooMuchRequested(uint256,uint256)",
)
_PANICS: Final = {0x01: "assertion failed", 0x11: "arithmetic overflow", 0x12: "division by zero", 0x32: "index out of range"}
# A Safe gives numbers for reasons (Safe 1.4.1, its error codes), and keeps to itself why a call inside failed.
_SAFE_WORDS: Final = {
    "GS013": "a call that the Safe carried out failed (GS013)",
    "GS020": "too few of the Safe's owners agree (GS020)",
    "GS025": "an owner of the Safe has not approved it (GS025)",
    "GS026": "a signature is of no owner of the Safe (GS026)",
}


@lru_cache(512)
def selector(signature: str) -> bytes:
    """The four bytes that name a function or an error: `transfer(address,uint256)`."""
    return keccak(text=signature)[:4]


@lru_cache(512)
def topic(signature: str) -> str:
    """The first topic of an event's logs, as 0x text."""
    return "0x" + keccak(text=signature).hex()


def call_data(signature: str, *values: Any) -> bytes:
    """Selector and arguments of a call."""
    return selector(signature) + encode(_types(signature), values)


def decoded(types: Sequence[str], data: bytes, what: str) -> tuple[Any, ...]:
    """What a call returned. Raises ChainError naming `what` when the bytes do not fit: no such contract there, usually."""
    try:
        return decode(types, data)
    except (DecodingError, OverflowError) as error:
        raise ChainError(
            f"{what} answers with {len(data)} bytes that do not fit ({type(error).__name__}): check its address"
        ) from None


def words(data: bytes) -> list[int]:
    """The 32-byte words of static data, unsigned. Anything after the last whole word is left out."""
    return [int.from_bytes(data[at : at + WORD], "big") for at in range(0, len(data) - WORD + 1, WORD)]


def signed(word: int, bits: int = 256) -> int:
    """A word read as a two's complement number of `bits` bits (the ABI extends the sign to the whole word)."""
    word &= (1 << bits) - 1
    return word - (1 << bits) if word >> (bits - 1) else word


# -- Multicall3 --------------------------------------------------------------------------------------------------------


def aggregate3(calls: Sequence[tuple[str, bytes]]) -> bytes:
    """Many reads in one; each may fail on its own."""
    return call_data("aggregate3((address,bool,bytes)[])", [(to, True, data) for to, data in calls])


def aggregate3_results(data: bytes) -> list[tuple[bool, bytes]]:
    """(succeeded, returned bytes) of each read, in order. Raises ChainError."""
    return [(bool(ok), bytes(answer)) for ok, answer in decoded(["(bool,bytes)[]"], data, "Multicall3")[0]]


def eth_balance(owner: str) -> bytes:
    """Of Multicall3 itself: native coins of an address."""
    return call_data("getEthBalance(address)", owner)


# -- tokens and Permit2 ------------------------------------------------------------------------------------------------


def balance_of(owner: str) -> bytes:
    return call_data("balanceOf(address)", owner)


def allowance(owner: str, spender: str) -> bytes:
    return call_data("allowance(address,address)", owner, spender)


def approve(spender: str, units: int) -> bytes:
    return call_data("approve(address,uint256)", spender, units)


def decimals() -> bytes:
    return selector("decimals()")


def permit2_allowance(owner: str, token: str, spender: str) -> bytes:
    """Returns (amount uint160, expiration uint48, nonce uint48)."""
    return call_data("allowance(address,address,address)", owner, token, spender)


def permit2_approve(token: str, spender: str, units: int, expires_s: int) -> bytes:
    """The spender may move so much of the token. `expires_s` in unix seconds; 0: in this block alone."""
    return call_data("approve(address,address,uint160,uint48)", token, spender, units, expires_s)


def anchor(seq: int, head: bytes) -> bytes:
    """Of AuditAnchor: record `seq` of the sender's journal has the hash `head` (32 bytes)."""
    return call_data("anchor(uint64,bytes32)", seq, head)


def anchored(owner: str) -> bytes:
    """Of AuditAnchor. Returns (seq uint64, head bytes32): what the owner anchored last."""
    return call_data("heads(address)", owner)


# -- pools -------------------------------------------------------------------------------------------------------------


def get_pair(token_a: str, token_b: str) -> bytes:
    return call_data("getPair(address,address)", token_a, token_b)


def get_pool(token_a: str, token_b: str, fee_pips: int) -> bytes:
    return call_data("getPool(address,address,uint24)", token_a, token_b, fee_pips)


def get_reserves() -> bytes:
    return selector("getReserves()")


def v3_slot0() -> bytes:
    """Returns (sqrtPriceX96, tick, ...)."""
    return selector("slot0()")


def v3_liquidity() -> bytes:
    return selector("liquidity()")


def v3_tick_spacing() -> bytes:
    return selector("tickSpacing()")


def v3_bitmap(word: int) -> bytes:
    return call_data("tickBitmap(int16)", word)


def v3_tick(tick: int) -> bytes:
    """Returns (liquidityGross, liquidityNet, ...)."""
    return call_data("ticks(int24)", tick)


def v4_slot0(pool_id: str) -> bytes:
    """Of StateView. Returns (sqrtPriceX96, tick, protocolFee, lpFee)."""
    return call_data("getSlot0(bytes32)", bytes.fromhex(pool_id[2:]))


def v4_liquidity(pool_id: str) -> bytes:
    return call_data("getLiquidity(bytes32)", bytes.fromhex(pool_id[2:]))


def v4_bitmap(pool_id: str, word: int) -> bytes:
    return call_data("getTickBitmap(bytes32,int16)", bytes.fromhex(pool_id[2:]), word)


def v4_tick(pool_id: str, tick: int) -> bytes:
    """Returns (liquidityGross, liquidityNet)."""
    return call_data("getTickLiquidity(bytes32,int24)", bytes.fromhex(pool_id[2:]), tick)


def v4_pool_id(token0: str, token1: str, fee_pips: int, tick_spacing: int, hooks: str) -> str:
    """A v4 pool's name: the hash of its key (PoolIdLibrary.toId)."""
    key = (token0, token1, fee_pips, tick_spacing, hooks)
    return "0x" + keccak(encode(["address", "address", "uint24", "int24", "address"], key)).hex()


# -- refusals ----------------------------------------------------------------------------------------------------------


def revert_reason(data: bytes, depth: int = 0) -> str:
    """Why a contract refused, in words: Error(string), Panic(uint256), the known errors of Uniswap and Permit2, or the selector.

    The router wraps what a command threw, a smart account what a call of its batch threw; the number is kept:
    `command 2: V3TooLittleReceived()`.
    """
    if not data:
        return "reverted without a reason"
    name, body = data[:4], data[4:]
    try:
        if name == selector("Error(string)"):
            words = printable(decode(["string"], body)[0]) or "reverted without a reason"
            return _SAFE_WORDS.get(words, words)
        if name == selector("Panic(uint256)"):
            code = decode(["uint256"], body)[0]
            return f"panic 0x{code:02x}: {_PANICS.get(code, 'see the Solidity documentation')}"
        if name == selector("ExecutionFailed(uint256,bytes)") and depth < _REASON_DEPTH_MAX:
            command, inner = decode(["uint256", "bytes"], body)
            return f"command {command}: {revert_reason(inner, depth + 1)}"
        if name == selector("ExecuteError(uint256,bytes)") and depth < _REASON_DEPTH_MAX:
            call, inner = decode(["uint256", "bytes"], body)
            return f"call {call}: {revert_reason(inner, depth + 1)}"
        if name == selector("WrappedError(address,bytes4,bytes,bytes)") and depth < _REASON_DEPTH_MAX:
            target, _, inner, _ = decode(["address", "bytes4", "bytes", "bytes"], body)
            return f"hook {target}: {revert_reason(inner, depth + 1)}"
        known = _known_errors().get(name)
        if known is not None:
            values = decode(_types(known), body)
            return f"{known[: known.index('(')]}({', '.join(map(str, values))})"
    except (DecodingError, OverflowError, UnicodeDecodeError):
        pass
    return f"reverted with 0x{data[:36].hex()}"


@lru_cache(1)
def _known_errors() -> dict[bytes, str]:
    return {selector(signature): signature for signature in _ERRORS}


@lru_cache(512)
def _types(signature: str) -> tuple[str, ...]:
    """The top-level argument types of a signature; tuples keep their commas."""
    inner = signature[signature.index("(") + 1 : -1]
    found, depth, start = [], 0, 0
    for at, character in enumerate(inner):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            found.append(inner[start:at])
            start = at + 1
    return (*found, inner[start:]) if inner else ()

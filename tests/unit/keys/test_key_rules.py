"""The user's own rules: the first that matches decides, on what the bytes say; windows hold for many requests and restarts."""

import threading
from pathlib import Path

import msgspec
import onchain_samples as o
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import SignatureUnknownError, SignerError
from agent.domain.plan import Calls
from agent.keys.bounds import ANY_AMOUNT, Act, Rule
from agent.keys.local import LocalSigner
from agent.keys.policy import check_calls
from agent.keys.remote import RemoteSigner
from agent.keys.rules import Charge, charged, judge
from agent.keys.spent import Spent
from agent.keys.steps import Preimage
from agent.ports import Custody

A, B, C = "0x" + "0a" * 20, "0x" + "0b" * 20, "0x" + "0c" * 20
ROUTER = "0x" + "0d" * 20
HOUR_S = 3_600


class Clock:
    def __init__(self, at_s: int = 1_000) -> None:
        self.at_s = at_s

    def now_ns(self) -> int:
        return self.at_s * 10**9

    async def sleep(self, seconds: float) -> None:
        self.at_s += int(seconds)


def swap(amount: int = 5, given: str = A, received: str = B) -> Act:
    return Act("swap", ROUTER, given, amount, received, 1)


def hourly(most: int, name: str = "hourly") -> Rule:
    return Rule(name, "allow", frozenset({"swap"}), given=frozenset({A}), window_s=HOUR_S, window_max=most)


# -- rules -------------------------------------------------------------------------------------------------------------

TOKENS = st.sampled_from([A, B, C])
KINDS = st.sampled_from(["approve", "permit", "swap", "anchor", "take_back"])
ACTS = st.builds(Act, KINDS, st.sampled_from([ROUTER, A]), TOKENS, st.integers(0, 20), TOKENS, st.integers(0, 20))
RULES = st.lists(
    st.builds(
        Rule,
        st.uuids().map(str),
        st.sampled_from(["allow", "deny"]),
        st.frozensets(KINDS, max_size=2),
        st.frozensets(st.sampled_from([ROUTER, A]), max_size=1),
        st.frozensets(TOKENS, max_size=2),
        st.frozensets(TOKENS, max_size=2),
        st.none() | st.integers(0, 20),
    ),
    max_size=5,
)


def said(rules: list[Rule], act: Act) -> tuple[str, bool]:
    """The same in other words: (the rule that decides, whether it allows)."""
    for rule in rules:
        if act.kind == "take_back" and "take_back" not in rule.kinds:
            continue
        if act.kind != "take_back" and rule.given and act.given not in rule.given:
            continue
        if act.kind != "take_back" and rule.received and act.received not in rule.received:
            continue
        if act.kind != "take_back" and rule.contracts and act.contract not in rule.contracts:
            continue
        if rule.kinds and act.kind not in rule.kinds:
            continue
        return rule.name, rule.effect == "allow" and (rule.amount_max is None or act.amount <= rule.amount_max)
    return "", not rules or act.kind == "take_back"


@given(RULES, st.lists(ACTS, min_size=1, max_size=4))
def test_the_first_rule_that_matches_decides(rules: list[Rule], acts: list[Act]) -> None:
    verdicts = judge(rules, acts)
    assert [(one.rule, not one.why) for one in verdicts] == [said(rules, act) for act in acts]
    if any(one.why for one in verdicts):
        with pytest.raises(SignerError, match="policy: "):
            charged(rules, acts)
    else:
        charged(rules, acts)


def test_an_amount_that_nobody_knows_is_above_every_bound() -> None:
    rule = Rule("bounded", "allow", amount_max=2**255)
    assert "do not say" in judge([rule], [swap(ANY_AMOUNT)])[0].why


def test_taking_back_needs_no_rule_and_can_be_forbidden_by_name_alone() -> None:
    back = Act("take_back", A)
    assert judge([hourly(1)], [back])[0].why == ""
    assert judge([Rule("nothing", "deny")], [back])[0].why == ""
    assert "forbids" in judge([Rule("never", "deny", frozenset({"take_back"}))], [back])[0].why


def test_swaps_alone_take_from_a_window_and_add_up_within_a_request() -> None:
    rule = Rule("all", "allow", given=frozenset({A}), window_s=HOUR_S, window_max=100)
    acts = [Act("approve", A, A, 60), Act("permit", B, A, 60), swap(20), swap(30)]
    assert charged([rule], acts) == [Charge(rule, A, 50)]


# -- windows -----------------------------------------------------------------------------------------------------------


def test_an_over_limit_split_into_many_is_stopped_where_the_window_ends(tmp_path: Path) -> None:
    rule, clock = hourly(100), Clock()
    spent = Spent(tmp_path / "spent", clock)
    for number in range(10):
        spent.reserve(f"1:{number}", [Charge(rule, A, 10)])
    with pytest.raises(SignerError, match=r"100 units of .* in 3600 s; 0 units"):
        spent.reserve("1:10", [Charge(rule, A, 1)])
    clock.at_s += HOUR_S - 1
    with pytest.raises(SignerError, match=r"0 units of .* are left"):
        spent.reserve("1:10", [Charge(rule, A, 1)])
    clock.at_s += 1
    spent.reserve("1:10", [Charge(rule, A, 100)])


def test_a_hundred_requests_at_once_share_one_window(tmp_path: Path) -> None:
    spent, rule, passed = Spent(tmp_path / "spent", Clock()), hourly(37), []

    def ask(number: int) -> None:
        try:
            spent.reserve(f"1:{number}", [Charge(rule, A, 1)])
        except SignerError:
            return
        passed.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 37
    assert spent.used("hourly", A) == 37


def test_all_of_a_request_or_nothing_of_it(tmp_path: Path) -> None:
    spent, wide, narrow = Spent(tmp_path / "spent", Clock()), hourly(100, "wide"), hourly(5, "narrow")
    with pytest.raises(SignerError, match="narrow"):
        spent.reserve("1:0", [Charge(wide, A, 6), Charge(narrow, B, 6)])
    assert spent.used("wide", A) == 0


def test_the_same_number_signed_again_takes_its_room_once(tmp_path: Path) -> None:
    """Outbidding signs the same swap many times, and one of them happens at most."""
    spent, rule = Spent(tmp_path / "spent", Clock()), hourly(100)
    for units in (60, 60, 70):
        spent.reserve("1:7", [Charge(rule, A, units)])
    assert spent.used("hourly", A) == 70
    with pytest.raises(SignerError, match=r"30 units of .* are left"):
        spent.reserve("1:8", [Charge(rule, A, 31)])
    spent.reserve("10:7", [Charge(rule, A, 30)])


def test_what_was_not_signed_is_given_back_once(tmp_path: Path) -> None:
    spent, rule = Spent(tmp_path / "spent", Clock()), hourly(100)
    spent.reserve("1:1", [Charge(rule, A, 40)])
    more = spent.reserve("1:1", [Charge(rule, A, 90)])
    more.release()
    more.release()
    assert spent.used("hourly", A) == 40, "the earlier signature of that number may still be mined"


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    clock, rule, path = Clock(), hourly(100), tmp_path / "spent"
    Spent(path, clock).reserve("1:1", [Charge(rule, A, 99)])
    again = Spent(path, clock)
    assert again.used("hourly", A) == 99
    with pytest.raises(SignerError, match=r"1 units of .* are left"):
        again.reserve("1:2", [Charge(rule, A, 2)])
    clock.at_s += HOUR_S
    assert Spent(path, clock).used("hourly", A) == 0


@given(cut=st.integers(1, 60))
def test_a_torn_last_line_never_left_the_key_and_damage_elsewhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path, clock, rule = tmp_path_factory.mktemp("s") / "spent", Clock(), hourly(100)
    spent = Spent(path, clock)
    spent.reserve("1:1", [Charge(rule, A, 10)])
    spent.reserve("1:2", [Charge(rule, A, 20)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert Spent(path, clock).used("hourly", A) == 10
    path.write_bytes(b"x" * cut + whole)
    with pytest.raises(SignerError, match=r"line 1 of .* is damaged"):
        Spent(path, clock)


def test_whoever_only_looks_changes_nothing(tmp_path: Path) -> None:
    clock, rule, path = Clock(), hourly(100), tmp_path / "spent"
    Spent(path, clock).reserve("1:1", [Charge(rule, A, 10)])
    before = path.read_bytes()
    look = Spent(path, clock, read_only=True)
    assert look.used("hourly", A) == 10
    with pytest.raises(SignerError, match="only its owner"):
        look.reserve("1:2", [Charge(rule, A, 1)])
    assert path.read_bytes() == before
    assert Spent(tmp_path / "absent", clock, read_only=True).used("hourly", A) == 0
    assert not (tmp_path / "absent").exists()


def test_the_file_is_written_anew_before_it_grows_without_end(tmp_path: Path) -> None:
    spent, rule = Spent(tmp_path / "spent", Clock(), lines_max=20), hourly(10**6)
    for number in range(200):
        spent.reserve(f"1:{number % 5}", [Charge(rule, A, number)])
    assert len((tmp_path / "spent").read_bytes().splitlines()) <= 21
    assert Spent(tmp_path / "spent", Clock()).used("hourly", A) == 195 + 196 + 197 + 198 + 199


def test_a_disk_that_refuses_stops_the_signature(tmp_path: Path) -> None:
    spent = Spent(tmp_path / "folder" / "spent", Clock())
    with pytest.raises(SignerError, match="nothing is signed without it"):
        spent.reserve("1:1", [Charge(hourly(10), A, 1)])


# -- through a signer --------------------------------------------------------------------------------------------------


def usdc_rule(most: int) -> Rule:
    return Rule("usdc", "allow", given=frozenset({o.USDC.lower()}), window_s=HOUR_S, window_max=most)


class Failing:
    """A Key that raises."""

    key_id, custody = "far", Custody("test", "hot", "milliseconds")

    def __init__(self, error: SignerError) -> None:
        self.address, self._error = o.OWNER, error

    async def signature(self, preimage: Preimage) -> bytes:
        raise self._error

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        pass


async def test_a_signer_counts_what_it_signs_and_refuses_when_the_window_is_used_up(tmp_path: Path) -> None:
    (given,) = {act.amount for act in acts_of_swap()}
    spent = Spent(tmp_path / "spent", Clock())
    made = LocalSigner(bytearray.fromhex(o.KEY_HEX), spent=spent)
    made.allow(o.policy(rules=(usdc_rule(2 * given),)))
    for nonce in (7, 8):
        await made.sign(with_nonce(nonce))
    with pytest.raises(SignerError, match=r"0 units of .* are left"):
        await made.sign(with_nonce(9))
    await made.sign(with_nonce(8))
    assert spent.used("usdc", o.USDC.lower()) == 2 * given


async def test_without_a_count_a_window_lets_nothing_through() -> None:
    made = LocalSigner(bytearray.fromhex(o.KEY_HEX))
    made.allow(o.policy(rules=(usdc_rule(10**30),)))
    with pytest.raises(SignerError, match="keeps no count"):
        await made.sign(with_nonce(1))


@pytest.mark.parametrize(("error", "is_kept"), [(SignerError("no"), False), (SignatureUnknownError("perhaps"), True)])
async def test_only_a_certain_refusal_gives_its_room_back(tmp_path: Path, error: SignerError, is_kept: bool) -> None:
    spent = Spent(tmp_path / "spent", Clock())
    made = RemoteSigner(Failing(error), spent=spent)
    made.allow(o.policy(rules=(usdc_rule(10**30),)))
    with pytest.raises(type(error)):
        await made.sign(with_nonce(1))
    assert bool(spent.used("usdc", o.USDC.lower())) == is_kept


def with_nonce(nonce: int) -> Calls:
    return msgspec.structs.replace(o.permit_and_swap(), nonce=nonce)


def acts_of_swap() -> list[Act]:
    return [act for act in check_calls(o.policy(), o.permit_and_swap()).acts if act.kind == "swap"]

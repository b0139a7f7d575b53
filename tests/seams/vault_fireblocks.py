"""How the vault suite reaches a vault of kind `fireblocks`: a stand-in that checks tokens, waits for its people and really pays."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import account_kit as kit
from account_kit import Chain as Desk
from custodian_stub import API_KEY, Custodian
from vault_case import Bench

from agent.keys.secrets import Secrets
from agent.keys.transfers import TRANSFER
from agent.keys.vaults import fireblocks
from agent.ports import Ticket, Vault

ADDRESS = kit.account("custodian").address


def open_case(desk: Desk, folder: Path) -> Bench:
    bench = Bench(desk, folder, fireblocks)
    desk.pay(ADDRESS)

    def pay(asked: dict[str, Any]) -> str:
        assert (asked["operation"], asked["assetId"]) == ("TRANSFER", "USD_TEST")
        to, units = asked["destination"]["oneTimeAddress"]["address"], int(Decimal(asked["amount"]).scaleb(6))
        return str(desk.send("custodian", desk.token, TRANSFER.data(to, units))["transactionHash"])

    custodian = Custodian(lambda: bench.clock.now_ns() // 10**9, pay)

    async def opened() -> Vault:
        secret = bench.folder / "api.pem"
        secret.touch(mode=0o600)
        secret.write_text(custodian.secret)
        config = fireblocks.Config(
            address=ADDRESS,
            url=custodian.url,
            api_key=API_KEY,
            secret="file:api.pem",
            vault_account="7",
            assets={"USD": "USD_TEST", "ETH": "ETH_TEST"},
        )
        return await fireblocks.open_vault(await bench.means(ADDRESS), config, (), None, Secrets(bench.folder))

    async def agree(vault: Vault, ticket: Ticket) -> None:
        custodian.approve(ticket.id)

    bench.open, bench.agree, bench.end, bench.begin_kind = opened, agree, custodian.stop, custodian.forget
    bench.canaries, bench.stand_in = (custodian.secret,), custodian
    return bench

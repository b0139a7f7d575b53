"""How the vault suite reaches a vault of kind `wallet`: its key is here and waits for nobody."""

from pathlib import Path

import account_kit as kit
from account_kit import Chain as Desk
from vault_case import Bench

from agent.keys.filing import without_windows
from agent.keys.local import LocalSigner
from agent.keys.secrets import Secrets
from agent.keys.vaults import wallet
from agent.ports import Ticket, Vault

ADDRESS = kit.account("a").address


def open_case(desk: Desk, folder: Path) -> Bench:
    bench = Bench(desk, folder, wallet)
    desk.pay(ADDRESS)
    bench.is_prompt = True

    async def opened() -> Vault:
        means = await bench.means(ADDRESS)
        signer = LocalSigner(bytearray(kit.key("a")))
        signer.allow(without_windows(means.policy))
        found: Vault = await wallet.open_vault(means, wallet.Config(address=ADDRESS), (), signer, Secrets(bench.folder))
        return found

    async def agree(vault: Vault, ticket: Ticket) -> None:
        pass

    bench.open, bench.agree = opened, agree
    bench.canaries = (kit.key("a").hex(),)
    return bench

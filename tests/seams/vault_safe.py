"""How the vault suite reaches a vault of kind `safe`: two of three owners on Anvil; a key is here, the others are people."""

from pathlib import Path

import account_kit as kit
from account_kit import Chain as Desk
from vault_case import Bench

from agent.keys.accounts.kinds import Safe
from agent.keys.accounts.owners import Consent
from agent.keys.digest import typed_digest
from agent.keys.filing import without_windows
from agent.keys.local import LocalSigner
from agent.keys.secrets import Secrets
from agent.keys.vaults import safe
from agent.ports import Ticket, Vault
from agent.simulation.chain.wallets import deploy_safe_contracts, new_safe

A, B, C = (kit.account(name).address for name in ("a", "b", "c"))


def open_case(desk: Desk, folder: Path) -> Bench:
    bench = Bench(desk, folder, safe)
    contracts = deploy_safe_contracts(desk.deployer)
    account = Safe(new_safe(desk.deployer, contracts, [A, B, C], 2), contracts.multi_send)
    desk.pay(A, account.address)
    held = bench.folder / "unused"

    async def opened() -> Vault:
        means = await bench.means(A, account)
        signer = LocalSigner(bytearray(kit.key("a")))
        signer.allow(without_windows(means.policy))
        config = safe.Config(kind="safe", address=account.address)
        return await safe.open_vault(means, config, (signer,), signer, Secrets(held))

    async def agree(vault: Vault, ticket: Ticket) -> None:
        assert isinstance(vault, safe.SafeVault)
        wanted = await vault.asked(ticket)
        assert B in wanted.signers
        await vault.add(ticket, Consent(B, "ecdsa", kit.signature("b", typed_digest(wanted.source))))  # type: ignore[arg-type]

    bench.open, bench.agree = opened, agree
    bench.canaries = (kit.key("a").hex(),)
    return bench

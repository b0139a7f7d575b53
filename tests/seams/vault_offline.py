"""How the vault suite reaches a vault of kind `offline`: the key signs a request file and gives a signature file back."""

from pathlib import Path

import account_kit as kit
from account_kit import Chain as Desk
from vault_case import Bench

from agent.keys.documents import digest_of, read_request, read_signature_file, request_file, signature_file, word_of
from agent.keys.secrets import Secrets
from agent.keys.vaults import offline
from agent.ports import Ticket, Vault

ADDRESS = kit.account("cold").address


def open_case(desk: Desk, folder: Path) -> Bench:
    bench = Bench(desk, folder, offline)
    desk.pay(ADDRESS)

    async def opened() -> Vault:
        found: Vault = await offline.open_vault(
            await bench.means(ADDRESS), offline.Config(address=ADDRESS), (), None, Secrets(bench.folder)
        )
        return found

    async def agree(vault: Vault, ticket: Ticket) -> None:
        assert isinstance(vault, offline.OfflineVault)
        asked = read_request(request_file(await vault.asked(ticket)))
        signature = kit.signature("cold", bytes.fromhex(digest_of(asked.source)[2:]))
        file = read_signature_file(signature_file(asked, ADDRESS, signature))
        await vault.add(ticket, word_of(file, await vault.asked(ticket)))

    bench.open, bench.agree = opened, agree
    return bench

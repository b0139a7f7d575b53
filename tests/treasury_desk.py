"""A treasury on a local chain: a hot wallet, a Safe of two of three, an address that signs offline; and its settings."""

from pathlib import Path

import account_kit as kit
from account_kit import Chain

from agent.app import Secret
from agent.keys.keystore import Keystore
from agent.simulation.chain.artifacts import own
from agent.simulation.chain.deploy import PERMIT2
from agent.simulation.chain.wallets import deploy_safe_contracts, new_safe

PASSWORD = "a password of the tests"
HOT, OWNER, PAPER, SAFE_KEY = (kit.account(name).address for name in ("hot", "owner", "paper", "safe key"))
ROUTER = "0x" + "a7" * 20

RULES = """
[[policy]]
name = "between our own"
effect = "allow"
acts = ["transfer"]
to = ["hot", "cold", "paper"]
window_s = 86400
window_max = "5000"
give = ["USD"]

[[policy]]
name = "gas between our own"
effect = "allow"
acts = ["transfer"]
give = ["ETH"]
to = ["hot", "cold", "paper"]

[[policy]]
name = "what trading needs"
effect = "allow"
acts = ["approve", "permit", "swap", "anchor"]
"""


class TreasuryDesk(Chain):
    """`safe`: of HOT's successor, OWNER (whose key is here) and SAFE_KEY (which is offline); two must agree."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.rpc)
        self.contracts = deploy_safe_contracts(self.deployer)
        self.safe = new_safe(self.deployer, self.contracts, [OWNER, SAFE_KEY, HOT], 2)
        self.weth = self.deployer.deploy(own("SandboxDollar"))  # another token: nothing here wraps
        self.pay(HOT, self.safe, PAPER)

    def usd(self, address: str) -> int:
        found: int = self.read(["uint256"], self.token, "balanceOf(address)", address)
        return found

    def settings(self, folder: Path, *more: str, rules: str = RULES, keys: str = "") -> Path:
        """The settings of the machine that trades. Ten million units are ten dollars."""
        keys = keys or 'keys = [{ keystore = "owner", password = "file:password" }]'
        text = f"""
[wallet]
keystore = "hot"
password = "file:password"
{rules}
[venues.pools]
kind = "uniswap"
rpc_url = "{self.rpc.url}"
chain_id = {self.chain_id}
wallet = "{HOT}"
contracts = {{ universal_router = "{ROUTER}", v2_factory = "0x{"0f" * 20}", multi_send = "{self.contracts.multi_send}" }}
tokens = [
  {{ symbol = "WETH", address = "{self.weth}", decimals = 18, group = "ETH" }},
  {{ symbol = "USD", address = "{self.token}", decimals = 6 }},
]
pools = [{{ protocol = "v2", base = "WETH", quote = "USD", address = "0x{"0e" * 20}" }}]

[treasury.accounts.hot]
kind = "wallet"
venue = "pools"
tier = "hot"
address = "{HOT}"

[treasury.accounts.cold]
kind = "safe"
venue = "pools"
tier = "cold"
address = "{self.safe}"
{keys}

[treasury.accounts.paper]
kind = "offline"
venue = "pools"
tier = "cold"
address = "{PAPER}"

[[treasury.bounds]]
coin = "USD"
hot = "hot"
cold = "cold"
floor = "2"
target = "5"
ceiling = "8"
{"".join(more)}
"""
        path = folder / "isthmus.toml"
        path.write_text(text)
        self.keep(folder, "hot", "owner")
        return path

    def keep(self, folder: Path, *names: str) -> None:
        """Keys in the keystore of a machine."""
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(PASSWORD)
        store = Keystore(folder / ".isthmus" / "keystore", 2**12)
        (folder / ".isthmus").chmod(0o700)
        for name in names:
            file = name.replace(" ", "-")
            if not (folder / ".isthmus" / "keystore" / f"{file}.json").exists():
                store.import_key(file, Secret(kit.key(name).hex()), Secret(PASSWORD))


__all__ = ["PERMIT2", "TreasuryDesk"]

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IToken {
    function balanceOf(address account) external view returns (uint256);
}

interface IPairV2 {
    function swap(uint256 amount0Out, uint256 amount1Out, address to, bytes calldata data) external;
}

interface IPoolV3 {
    function swap(address recipient, bool zeroForOne, int256 amountSpecified, uint160 sqrtPriceLimitX96, bytes calldata data)
        external
        returns (int256 amount0, int256 amount1);
}

struct PoolKey {
    address currency0;
    address currency1;
    uint24 fee;
    int24 tickSpacing;
    address hooks;
}

struct SwapParams {
    bool zeroForOne;
    int256 amountSpecified;
    uint160 sqrtPriceLimitX96;
}

interface IPoolManagerV4 {
    function unlock(bytes calldata data) external returns (bytes memory);
    function swap(PoolKey memory key, SwapParams memory params, bytes calldata hookData) external returns (int256 delta);
    function sync(address currency) external;
    function settle() external payable returns (uint256 paid);
    function take(address currency, address to, uint256 amount) external;
}

/// @title Moves a sandbox pool's price to a wanted level with its own inventory
/// @notice v3 and v4 stop exactly at a price limit; v2 takes the amounts that its owner worked out. Only its owner may call it.
/// It exists so that the sandbox's pools follow its exchange. It checks no profit: its owner does, off chain.
contract SandboxArbitrageur {
    address public immutable owner;
    IPoolManagerV4 public immutable manager;

    /// The pool whose callback is awaited: nobody else may draw on the inventory.
    address private awaited;

    error NotOwner(address caller);
    error NotAwaited(address caller);
    error TransferFailed(address token);

    constructor(IPoolManagerV4 manager_) {
        owner = msg.sender;
        manager = manager_;
    }

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner(msg.sender);
        _;
    }

    /// @notice Pays `amountIn` of `tokenIn` into a v2 pair and takes the given output amounts (one of them zero).
    function swapV2(IPairV2 pair, address tokenIn, uint256 amountIn, uint256 amount0Out, uint256 amount1Out) external onlyOwner {
        _pay(tokenIn, address(pair), amountIn);
        pair.swap(amount0Out, amount1Out, address(this), "");
    }

    /// @notice Sells up to `amountInMax` into a v3 pool until its price reaches `sqrtPriceLimitX96`.
    function swapV3(IPoolV3 pool, address token0, address token1, bool zeroForOne, uint256 amountInMax, uint160 sqrtPriceLimitX96)
        external
        onlyOwner
    {
        awaited = address(pool);
        pool.swap(address(this), zeroForOne, int256(amountInMax), sqrtPriceLimitX96, abi.encode(token0, token1));
        awaited = address(0);
    }

    /// @notice Sells up to `amountInMax` into a v4 pool until its price reaches `sqrtPriceLimitX96`.
    function swapV4(PoolKey calldata key, bool zeroForOne, uint256 amountInMax, uint160 sqrtPriceLimitX96) external onlyOwner {
        manager.unlock(abi.encode(key, zeroForOne, amountInMax, sqrtPriceLimitX96));
    }

    /// @notice Gives inventory back to the owner.
    function withdraw(address token, uint256 amount) external onlyOwner {
        _pay(token, owner, amount);
    }

    function uniswapV3SwapCallback(int256 amount0Delta, int256 amount1Delta, bytes calldata data) external {
        if (msg.sender != awaited) revert NotAwaited(msg.sender);
        (address token0, address token1) = abi.decode(data, (address, address));
        if (amount0Delta > 0) _pay(token0, msg.sender, uint256(amount0Delta));
        if (amount1Delta > 0) _pay(token1, msg.sender, uint256(amount1Delta));
    }

    function unlockCallback(bytes calldata data) external returns (bytes memory) {
        if (msg.sender != address(manager)) revert NotAwaited(msg.sender);
        (PoolKey memory key, bool zeroForOne, uint256 amountInMax, uint160 limit) =
            abi.decode(data, (PoolKey, bool, uint256, uint160));
        // In v4 a negative amount is exact input, and the two signed 128-bit deltas come packed in one word.
        int256 delta = manager.swap(key, SwapParams(zeroForOne, -int256(amountInMax), limit), "");
        _square(key.currency0, int128(delta >> 128));
        _square(key.currency1, int128(delta));
        return "";
    }

    function _square(address currency, int128 delta) private {
        if (delta < 0) {
            manager.sync(currency);
            _pay(currency, address(manager), uint256(-int256(delta)));
            manager.settle();
        } else if (delta > 0) {
            manager.take(currency, address(this), uint256(int256(delta)));
        }
    }

    /// Accepts tokens that return true and tokens that return nothing.
    function _pay(address token, address to, uint256 amount) private {
        (bool ok, bytes memory result) = token.call(abi.encodeWithSignature("transfer(address,uint256)", to, amount));
        if (!ok || (result.length != 0 && !abi.decode(result, (bool)))) revert TransferFailed(token);
    }
}

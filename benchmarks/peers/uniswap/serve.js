// The real split search of Uniswap's smart-order-router (getBestSwapRouteBy: steps of five per cent, at most seven splits), asked over
// a pipe. Quotes come ready with the question, so fetching them is not in its time; only quotes, gas and pool names decide, so one
// route object stands for all. Times are of the search alone, each call by itself.
'use strict';
const readline = require('readline');
const path = require('path');

console.log = console.info = console.debug = console.error; // the standard output belongs to the pipe
const { V3Route } = require('@uniswap/smart-order-router'); // its index first: the modules below import one another in circles
const main = require.resolve('@uniswap/smart-order-router');
const home = main.slice(0, main.indexOf('smart-order-router') + 'smart-order-router'.length);
const inside = (name) => require(path.join(home, 'build', 'main', name));
const { getBestSwapRouteBy } = inside('routers/alpha-router/functions/best-swap-route.js');
const { usdGasTokensByChain } = inside('routers/alpha-router/gas-models/gas-model.js');
const { CurrencyAmount } = inside('util/amounts.js');
const { Token, TradeType, ChainId } = require('@uniswap/sdk-core');
const { Pool } = require('@uniswap/v3-sdk');
const { BigNumber } = require('@ethersproject/bignumber');

const STEP = 5;
const percents = Array.from({ length: 100 / STEP }, (_, i) => STEP * (i + 1));
const config = { minSplits: 1, maxSplits: 7, forceCrossProtocol: false, distributionPercent: STEP };
const usd = usdGasTokensByChain[ChainId.MAINNET][0];
const quoteToken = new Token(ChainId.MAINNET, '0x' + '2'.repeat(40), 18, 'USDT', 'USDT');
const baseToken = new Token(ChainId.MAINNET, '0x' + '1'.repeat(40), 18, 'ETH', 'ETH');
const pool = new Pool(quoteToken, baseToken, 3000, '79228162514264337593543950336', '1000000000000', 0);
const route = new V3Route([pool], baseToken, quoteToken);
const amount = (units) => CurrencyAmount.fromRawAmount(quoteToken, String(units));
const noPortion = {
  getPortionAdjustedQuote: () => undefined,
  getPortionAmount: () => undefined,
  getRouteWithQuotePortionAdjusted: (_, found) => found,
  getQuote: (_, quote) => quote,
  getQuoteGasAdjusted: (_, quote) => quote,
  getQuoteGasAndPortionAdjusted: (_, quote) => quote,
};

// [percent, source, quote, gas], units of 18 decimals as text; quotes are received when selling, paid when buying.
const routesOf = (quotes, side) => {
  const found = {};
  for (const [percent, source, quote, gas] of quotes) {
    const all = side === 'sell' ? BigInt(quote) - BigInt(gas) : BigInt(quote) + BigInt(gas);
    (found[percent] = found[percent] || []).push({
      percent,
      source,
      route,
      quoteToken,
      protocol: 'V3',
      amount: amount(percent),
      quote: amount(quote),
      quoteAdjustedForGas: amount(all),
      gasEstimate: BigNumber.from(100000),
      gasCostInToken: amount(gas),
      gasCostInUSD: CurrencyAmount.fromRawAmount(usd, '0'),
      poolIdentifiers: ['p' + source],
      poolAddresses: ['p' + source],
      tradeType: side === 'sell' ? TradeType.EXACT_INPUT : TradeType.EXACT_OUTPUT,
      toString: () => `${source}:${percent}`,
    });
  }
  return found;
};

const search = async ({ quotes, side, count }) => {
  const kind = side === 'sell' ? TradeType.EXACT_INPUT : TradeType.EXACT_OUTPUT;
  const ns = [];
  let best = null;
  for (let i = 0; i < count; i++) {
    const routes = routesOf(quotes, side);
    const start = process.hrtime.bigint();
    best = await getBestSwapRouteBy(kind, routes, percents, ChainId.MAINNET, (r) => r.quoteAdjustedForGas, config, noPortion);
    ns.push(Number(process.hrtime.bigint() - start));
  }
  const legs = best ? best.routes.map((r) => [r.percent, r.source]) : null;
  const total = best ? best.routes.reduce((sum, r) => sum + BigInt(r.quoteAdjustedForGas.quotient.toString()), 0n) : null;
  return { ns, legs, total: total === null ? null : String(total) };
};

const tell = (answer) => process.stdout.write(JSON.stringify(answer) + '\n');

(async () => {
  const { version } = require(path.join(home, 'package.json'));
  tell({ versions: { 'smart-order-router': version, node: process.versions.node } });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      tell(await search(JSON.parse(line)));
    } catch (error) {
      tell({ error: String(error.message).slice(0, 300) });
    }
  }
})();

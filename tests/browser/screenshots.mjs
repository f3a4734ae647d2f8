// Pictures of a report for the README: `node tests/browser/screenshots.mjs SITE_FOLDER OUT_FOLDER`.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { chromium } from 'playwright-core';

const [site, out] = process.argv.slice(2).map((path) => resolve(path));
const PICTURES = [
  ['overview', 'index.html', 1200, 1050, 'light'],
  ['overview-dark', 'index.html', 1200, 1050, 'dark'],
  ['question', 'questions.html', 1200, 900, 'light'],
  ['phone', 'index.html', 390, 844, 'light'],
];
mkdirSync(out, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
for (const [name, file, width, height, colorScheme] of PICTURES) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme });
  await page.goto('file://' + join(site, file));
  if (file === 'questions.html') {
    await page.waitForSelector('html[data-ready]');
    await page.click('#rows tr:nth-child(3) a');
    await page.waitForSelector('#output pre');
    await page.evaluate(() => scrollTo(0, 0));
  }
  await page.screenshot({ path: join(out, `${name}.png`) });
  await page.close();
}
await browser.close();

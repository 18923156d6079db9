// Works in VS Code on a mount of a simulated site, as a person would: opens, searches, edits, saves, sees what others change,
// commits. Run by `scripts/vscode-test`, which installs code-server. Arguments: the program to test, and where code-server is.

import { spawn, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const [PROGRAM, INSTALLED] = process.argv.slice(2);
const PICTURE = path.join(INSTALLED, 'vscode.png');
const { chromium } = createRequire(`${INSTALLED}/`)('playwright-core');
// For what has no promised time: this machine may be slow.
const PATIENCE = 90_000;
// What others change in a directory in use is looked for every 6 s (docs/SEMANTICS.md); the rest is for the way to the screen.
const NOTICED = 15_000;
const LINES = '.editor-instance .view-lines';

let stopped = false;
const sleep = ms => new Promise(done => setTimeout(done, ms));

async function until(what, is, limit = PATIENCE) {
  const began = Date.now();
  for (;;) {
    const found = await is();
    if (found) return { found, ms: Date.now() - began };
    if (stopped) throw new Error('stopped by a signal');
    if (Date.now() - began > limit) throw new Error(`${what}: not within ${limit / 1000} s`);
    await sleep(100);
  }
}

/** Starts a program and waits for a line of its output. */
async function start(command, words, options, says) {
  const child = spawn(command, words, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let ended = false;
  child.on('error', error => { ended = true; said += error; });
  child.on('exit', () => { ended = true; });
  child.stdout.on('data', data => { said += data; });
  child.stderr.on('data', data => { said += data; });
  const { found } = await until(`${path.basename(command)} starts`, () => {
    if (ended) throw new Error(`${command} ended: ${said}`);
    return said.match(says);
  });
  return { child, found, end: () => new Promise(done => { if (ended) done(); else { child.on('exit', done); child.kill(); } }) };
}

class Run {
  constructor(scratch, sim) {
    this.scratch = scratch;
    this.sim = sim;
    this.code = path.join(sim.home.dev, 'code');
    this.mount = path.join(scratch, 'mysite');
    const bin = path.dirname(PROGRAM);
    this.env = {
      ...process.env, ...sim.env, HOME: scratch, TMPDIR: path.join(scratch, 'tmp'), PATH: `${bin}:${process.env.PATH}`,
      XDG_STATE_HOME: `${scratch}/state`, XDG_CACHE_HOME: `${scratch}/cache`, XDG_CONFIG_HOME: `${scratch}/config`,
      XDG_DATA_HOME: `${scratch}/data`, XDG_RUNTIME_DIR: path.join(scratch, 'tmp'),
    };
    fs.mkdirSync(this.mount);
    fs.mkdirSync(this.env.TMPDIR, { mode: 0o700 });
    fs.writeFileSync(path.join(scratch, '.gitconfig'), '[user]\n\tname = Dev Eloper\n\temail = dev@sim.example\n');
    const user = path.join(scratch, 'vscode/User');
    fs.mkdirSync(user, { recursive: true });
    fs.writeFileSync(path.join(user, 'settings.json'), JSON.stringify({
      'workbench.startupEditor': 'none', 'telemetry.telemetryLevel': 'off', 'chat.disableAIFeatures': true,
      'security.workspace.trust.enabled': false, 'extensions.autoUpdate': false, 'workbench.tips.enabled': false,
      'php.validate.enable': false, 'files.autoSave': 'off',
    }));
  }

  pantheonfs(...words) {
    const ran = spawnSync(PROGRAM, words, { env: this.env, encoding: 'utf8', cwd: '/' });
    if (ran.status !== 0) throw new Error(`pantheonfs ${words.join(' ')}: ${ran.stdout}${ran.stderr}`);
    return ran.stdout;
  }

  async begin() {
    this.pantheonfs('mount', `${this.sim.site}.dev`, this.mount, '-o', this.sim.options);
    const words = [
      path.join(INSTALLED, 'node_modules/code-server/out/node/entry.js'), '--bind-addr', '127.0.0.1:0', '--auth', 'none',
      '--config', path.join(this.scratch, 'code-server.yaml'), '--disable-telemetry', '--disable-update-check',
      '--disable-workspace-trust', '--user-data-dir', path.join(this.scratch, 'vscode'),
      '--extensions-dir', path.join(this.scratch, 'extensions'),
    ];
    this.server = await start(process.execPath, words, { env: this.env, cwd: this.scratch }, /listening on (http:\S+)/);
    // Playwright would end this process, and leave the mount.
    const signals = { handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false };
    const switches = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'];
    this.browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: switches, env: this.env, ...signals });
    this.page = await this.browser.newPage({ viewport: { width: 1280, height: 800 } });
    this.page.setDefaultTimeout(PATIENCE);
    const url = `${this.server.found[1].replace(/\/$/, '')}/?folder=${encodeURIComponent(this.mount)}`;
    await this.page.goto(url);
    await this.page.waitForSelector('.explorer-folders-view .monaco-list-row');
  }

  async end() {
    await this.browser?.close();
    await this.server?.end();
    spawnSync(PROGRAM, ['umount', '--force', this.mount], { env: this.env, cwd: '/' });
  }

  there(name) {
    return fs.readFileSync(path.join(this.code, name), 'utf8');
  }

  async open(name) {
    await this.page.keyboard.press('Control+p');
    await this.page.waitForSelector('.quick-input-widget input');
    await this.page.keyboard.type(name);
    await this.page.locator('.quick-input-list .monaco-list-row.focused', { hasText: path.basename(name) }).waitFor();
    await this.page.keyboard.press('Enter');
    await this.page.locator('.tab.active', { hasText: path.basename(name) }).waitFor();
    await this.page.waitForSelector(`${LINES} .view-line`);
  }

  async text() {
    // The editor shows spaces as no-break spaces.
    const lines = await this.page.locator(LINES).first().innerText();
    return lines.replaceAll('\u00a0', ' ');
  }

  shows(text) {
    return async () => (await this.text()).includes(text);
  }

  async append(text) {
    await this.page.keyboard.press('Control+End');
    await this.page.keyboard.type(text);
  }

  /** Runs a command of the palette. */
  async command(name) {
    await this.page.keyboard.press('F1');
    await this.page.waitForSelector('.quick-input-widget input');
    await this.page.keyboard.type(name);
    await this.page.locator('.quick-input-list .monaco-list-row.focused', { hasText: name }).waitFor();
    await this.page.keyboard.press('Enter');
  }

  async control(route, body) {
    const headers = { 'Content-Type': 'application/json' };
    const answer = await fetch(`${this.sim.control}/${route}`, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${route}: ${await answer.text()}`);
  }

  async save() {
    await this.page.keyboard.press('Control+s');
    await until('it is saved', async () => await this.page.locator('.tab.active.dirty').count() === 0);
  }

  /** What VS Code complains of. */
  async notices() {
    return await this.page.locator('.notification-list-item-message').allInnerTexts();
  }

  async nothingIsSaid() {
    const said = await this.notices();
    if (said.length > 0) throw new Error(`VS Code says: ${said.join(' | ')}`);
  }
}

const STEPS = [
  ['opens a file', async run => {
    await run.open('index.php');
    await until('its text', run.shows('Front controller'));
  }],
  ['saves, and the server has exactly these bytes', async run => {
    const before = run.there('index.php');
    for (const line of ['// one', '// two', '// three']) {
      await run.append(`${line}\n`);
      await run.save();
    }
    const after = `${before}// one\n// two\n// three\n`;
    const { ms } = await until('the bytes', () => run.there('index.php') === after, NOTICED);
    await run.nothingIsSaid();
    return `on the server ${ms} ms after the save`;
  }],
  ['shows what others change in the open file', async run => {
    fs.appendFileSync(path.join(run.code, 'index.php'), '// by a teammate\n');
    const { ms } = await until('the new text', run.shows('by a teammate'), NOTICED);
    return `after ${ms} ms`;
  }],
  ['saves over it without a conflict', async run => {
    await run.append('// four\n');
    await run.save();
    await until('the bytes', () => run.there('index.php').endsWith('// by a teammate\n// four\n'), NOTICED);
    await run.nothingIsSaid();
  }],
  ['shows a new file of others in the explorer', async run => {
    fs.writeFileSync(path.join(run.code, 'by-others.php'), '<?php // new\n');
    const row = run.page.locator('.explorer-folders-view .monaco-list-row', { hasText: 'by-others.php' });
    const { ms } = await until('the row', async () => await row.count() > 0, NOTICED);
    fs.unlinkSync(path.join(run.code, 'by-others.php'));
    const gone = await until('the row goes', async () => await row.count() === 0, NOTICED);
    return `after ${ms} ms, and its end after ${gone.ms} ms`;
  }],
  ['searches all files', async run => {
    await run.page.keyboard.press('Control+Shift+f');
    await run.page.waitForSelector('.search-view textarea');
    await run.page.keyboard.type('Theme Name: Sunrise');
    await run.page.keyboard.press('Enter');
    const match = run.page.locator('.search-view .linematch', { hasText: 'Theme Name' });
    const { ms } = await until('the match', async () => await match.count() > 0);
    return `after ${ms} ms`;
  }],
  ['says that others have changed a file that is being edited', async run => {
    const name = 'wp-content/themes/sunrise/style.css';
    await run.open('style.css');
    await run.append('h1 { margin: 0; }\n');
    // Of another size: VS Code takes a newer file of the same size for the one that it has, on every filesystem.
    const theirs = run.there(name).replace('#333', '#111111');
    fs.writeFileSync(path.join(run.code, name), theirs);
    await sleep(NOTICED);
    await run.page.keyboard.press('Control+s');
    const notices = run.page.locator('.notification-list-item-message', { hasText: 'content of the file is newer' });
    await until('VS Code says that there is a newer one', async () => await notices.count() > 0);
    if (run.there(name) !== theirs) throw new Error('the version of others was overwritten');
    await run.page.locator('.notification-list-item .monaco-button', { hasText: 'Overwrite' }).click();
    await until('the overwriting version', () => run.there(name).includes('#333') && run.there(name).includes('h1'), NOTICED);
    await run.nothingIsSaid();
    if (fs.existsSync(path.join(run.mount, '.pantheon/conflicts/code', name))) throw new Error('it became a conflict of the mount');
  }],
  ['keeps both versions when others change a file in the moment of a save', async run => {
    const name = 'wp-content/plugins/hello-site/hello-site.php';
    await run.open('hello-site.php');
    await run.append('// mine\n');
    const theirs = run.there(name).replace('Hello Site', 'Hello Sitorama');
    fs.writeFileSync(path.join(run.code, name), theirs);
    await run.page.keyboard.press('Control+s');
    // VS Code has seen the other version and says so, or it has not and the mount keeps what it wrote.
    const kept = path.join(run.mount, '.pantheon/conflicts/code', name);
    const notices = run.page.locator('.notification-list-item-message', { hasText: 'content of the file is newer' });
    const { found } = await until('one of them notices', async () => {
      if (await notices.count() > 0) return 'VS Code';
      return fs.existsSync(kept) && fs.readFileSync(kept, 'utf8').includes('// mine') && 'the mount';
    });
    if (run.there(name) !== theirs) throw new Error('the version of others was overwritten');
    if (found === 'VS Code') {
      await run.page.locator('.notification-list-item .codicon-notifications-clear').first().click();
      await run.command('File: Revert File');
    } else {
      run.pantheonfs('resolve', path.join(run.mount, name), '--theirs');
    }
    await until('the version of others is shown', run.shows('Hello Sitorama'), NOTICED);
    return `noticed by ${found}`;
  }],
  ['lists the uncommitted changes in the Git panel', async run => {
    await run.page.keyboard.press('Control+Shift+g');
    const rows = run.page.locator('.scm-view .monaco-list-row .resource');
    const { ms } = await until('three changes', async () => await rows.count() >= 3);
    const names = (await rows.locator('.label-name').allInnerTexts()).join(', ');
    if (await rows.count() !== 3) throw new Error(`there are: ${names}`);
    return `${names}, after ${ms} ms`;
  }],
  ['commits in the Git panel, on the platform', async run => {
    await run.command('Git: Stage All Changes');
    const staged = run.page.locator('.scm-view .monaco-list-row', { hasText: 'Staged Changes' });
    await until('they are staged', async () => await staged.count() > 0);
    await run.page.locator('.scm-view .scm-input .monaco-editor').click();
    await run.page.keyboard.type('A commit by VS Code');
    await run.page.screenshot({ path: PICTURE });
    await run.page.keyboard.press('Control+Enter');
    const git = ['--git-dir', run.sim.repository, 'log', '-1', '--format=%s', 'master'];
    const { ms } = await until('the commit of the platform', () =>
      spawnSync('git', git, { encoding: 'utf8' }).stdout.trim() === 'A commit by VS Code');
    const rows = run.page.locator('.scm-view .monaco-list-row .resource');
    const empty = await until('the panel is empty', async () => await rows.count() === 0);
    await run.nothingIsSaid();
    const left = run.pantheonfs('pending', run.mount).split('\n').filter(line => line !== '' && !line.startsWith('#'));
    if (left.length > 0) throw new Error(`uncommitted on the server: ${left}`);
    return `after ${ms} ms, and the panel is empty ${empty.ms} ms later`;
  }],
  ['says that a save fails in Git mode, and saves when it is SFTP mode again', async run => {
    await run.control('mode', { environment: 'dev', mode: 'git' });
    await until('the mount knows', () => fs.readFileSync(path.join(run.mount, '.pantheon/mode'), 'utf8').startsWith('git'));
    const before = run.there('index.php');
    await run.open('index.php');
    await run.append('// in Git mode\n');
    await run.page.keyboard.press('Control+s');
    const notices = run.page.locator('.notification-list-item-message', { hasText: 'Failed to save' });
    await until('VS Code says that it failed', async () => await notices.count() > 0);
    const said = (await run.notices()).join(' | ');
    if (!/read-only file system/i.test(said)) throw new Error(`VS Code says: ${said}`);
    if (await run.page.locator('.tab.active.dirty').count() !== 1) throw new Error('the editor takes it for saved');
    run.pantheonfs('mode', 'sftp', '--at', run.mount);
    await run.save();
    await until('the bytes', () => run.there('index.php') === `${before}// in Git mode\n`, NOTICED);
    return said;
  }],
];

async function tell(run) {
  for (const [what, does] of STEPS) {
    try {
      const said = await does(run);
      console.log(`ok      ${what}${said ? `: ${said}` : ''}`);
    } catch (error) {
      console.log(`FAILED  ${what}: ${error.message}`);
      await run.page.screenshot({ path: PICTURE }).catch(() => {});
      return false;
    }
  }
  return true;
}

async function main() {
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'pantheonfs-vscode-'));
  const sim = await start(PROGRAM, ['sim', '--json'], { cwd: scratch }, /^(\{.*\})\n/);
  const run = new Run(scratch, JSON.parse(sim.found[1]));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => { stopped = true; run.browser?.close().catch(() => {}); });
  }
  try {
    await run.begin();
    if (!await tell(run)) process.exitCode = 1;
    console.log(`picture: ${PICTURE}`);
  } finally {
    await run.end();
    await sim.end();
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

await main();

import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const script = join(import.meta.dirname, '../../scripts/install-debian.sh')
const folder = mkdtempSync(join(tmpdir(), 'nfactor-install-'))
after(() => { rmSync(folder, { recursive: true, force: true }) })

const skip = existsSync('/usr/sbin/spin') || existsSync('/usr/local/sbin/spin') || process.platform !== 'linux'

/** Runs the script where there are these programs alone, besides what it needs itself; `apt-get` is a shell script. */
function run(name: string, user: number, aptGet: string | null, groups: readonly string[], programs: readonly string[] = []) {
  const path = mkdtempSync(join(folder, `${name}-`))
  for (const tool of ['rm', 'mktemp', 'grep', 'chmod', 'cat', 'touch']) symlinkSync(`/bin/${tool}`, join(path, tool))
  const program = (file: string, text: string): void => {
    writeFileSync(join(path, file), `#!/bin/sh\n${text}\n`)
    chmodSync(join(path, file), 0o755)
  }
  program('id', `echo ${user}`)
  // Without its limits; and it must not touch the machine.
  program('timeout', 'shift; "$@"')
  if (aptGet !== null) program('apt-get', `echo "$*" >> ${path}/calls\n${aptGet}`)
  for (const one of programs) program(one, '')
  const policy = join(path, 'policy-rc.d')
  const { status, stdout, stderr } = spawnSync('/bin/sh', [script, ...groups], {
    env: { PATH: path, TMPDIR: path, NFACTOR_POLICY_RC_D: policy }, encoding: 'utf8',
  })
  assert.equal(existsSync(policy), false, 'services may start again')
  const calls = existsSync(join(path, 'calls')) ? readFileSync(join(path, 'calls'), 'utf8').trim().split('\n') : []
  return { status, stdout, stderr, calls: calls.map((call) => call.replace(/^.*?(?=update|install)/, '')) }
}

test('where all is there nothing is done or said', { skip }, () => {
  assert.deepEqual(run('there', 0, 'exit 1', ['model'], ['spin', 'gcc']), { status: 0, stdout: '', stderr: '', calls: [] })
})

test('what is missing in the groups is installed; what cannot be is named, and fails nobody', { skip }, () => {
  const install = (which: string): string => `case "$*" in *install*${which}*) exit 100 ;; esac
case "$*" in *spin*) touch "\${0%/*}/spin"; chmod 755 "\${0%/*}/spin" ;; esac`
  assert.deepEqual(run('some', 0, install('no-such'), ['model'], ['gcc']),
    { status: 0, stdout: '', stderr: 'install-debian: installs spin\n', calls: ['update', 'install --no-install-recommends spin'] })
  const half = run('half', 0, install('gcc'), ['model'])
  assert.equal(half.status, 0)
  assert.match(half.stderr, /installs spin gcc\n.*left out, for they could not be installed: gcc\n$/)
  assert.deepEqual(half.calls.slice(1), ['spin gcc', 'spin', 'gcc'].map((packages) => `install --no-install-recommends ${packages}`))
})

test('without root, without Debian, or with a group that is none, it says so', { skip }, () => {
  for (const [name, user, aptGet, text] of [['user', 1000, '', 'needs root'], ['other', 0, null, 'this is no Debian']] as const) {
    assert.deepEqual(run(name, user, aptGet, ['model']),
      { status: 0, stdout: '', stderr: `install-debian: ${text}; left out: spin gcc\n`, calls: [] })
  }
  assert.match(run('group', 0, null, ['modle']).stderr, /there is no group modle/)
})

/**
 * Machine connection: how controllers reach the agent of another machine (machine-agent.ts): line RPC over TCP, in TLS or, where people have
 * said so, in clear text. Before anything else either end proves that it has the cluster's token, which itself never goes over the wire:
 *
 *     ─▶ Hello                                ◀─ nonce of the agent
 *     ─▶ Prove: own nonce, proof, cluster     ◀─ proof of the agent
 *
 * A proof is an HMAC-SHA-256 of the side's name and both nonces. In clear text whoever sits in between can still take a connection over when
 * it has been proved: TLS is what keeps them out.
 */

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { CodedError } from '../base/coded-error.ts'
import { LineRpcClient } from './line-rpc.ts'

export interface MachineAddress {
  /** What people call the machine. */
  readonly name: string
  readonly host: string
  readonly port: number
  /** PEM: with it, TLS is spoken, and the agent's certificate must be signed by this authority. */
  readonly authority?: string | undefined
}

/** How long everything up to the proof may take. */
export const PROOF_MS = 3_000
const NONCE_BYTES = 32

export function newNonce(): string {
  return randomBytes(NONCE_BYTES).toString('base64url')
}

export function proofOf(side: 'controller' | 'agent', token: string, controllerNonce: string, agentNonce: string): string {
  return createHmac('sha256', token).update(`nfactor ${side}\n${controllerNonce}\n${agentNonce}`).digest('base64url')
}

/** Whether two proofs are the same, in a time that says nothing about it. */
export function isProof(given: unknown, right: string): boolean {
  const [one, other] = [Buffer.from(typeof given === 'string' ? given : ''), Buffer.from(right)]
  return one.length === other.length && timingSafeEqual(one, other)
}

/**
 * A connection to the agent of a machine, both sides proved, for this cluster.
 *
 * @param proofMs how long each step up to the proof may take
 * @throws CodedError `NF_MACHINE`, `NF_RPC_TOKEN`, and what the agent says
 */
export async function openMachine(address: MachineAddress, token: string, clusterId: number, proofMs = PROOF_MS): Promise<LineRpcClient> {
  const { name, host, port } = address
  const what = `machine ${name} at ${host}:${port}`
  const client = new LineRpcClient(what, await connected(address, what, proofMs))
  try {
    const nonce = newNonce()
    const hello = await client.call<{ nonce: string }>('Hello', {}, proofMs)
    const proof = proofOf('controller', token, nonce, hello.nonce)
    const answer = await client.call<{ proof: string }>('Prove', { nonce, proof, clusterId }, proofMs)
    if (!isProof(answer.proof, proofOf('agent', token, nonce, hello.nonce))) {
      throw new CodedError('NF_RPC_TOKEN', `${what} does not have the cluster's token`, 'Give it the same token file')
    }
    return client
  } catch (error) {
    client.close()
    if (error instanceof CodedError && error.code !== 'NF_NODE_GONE') throw error
    throw new CodedError('NF_MACHINE', `${what} does not speak as an agent of NFactor`, 'Is nfactor machine what runs there, with tls as here?',
      { cause: error })
  }
}

function connected({ host, port, authority }: MachineAddress, what: string, proofMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket: Socket = authority === undefined ? connect({ host, port, noDelay: true })
      : connectTls({ host, port, ca: authority, minVersion: 'TLSv1.2', ...isIP(host) === 0 && { servername: host } })
    const timer = setTimeout(() => { socket.destroy(new Error(`no answer for ${proofMs} ms`)) }, proofMs)
    const refuse = (cause: Error): void => {
      clearTimeout(timer)
      reject(new CodedError('NF_MACHINE', `${what} cannot be reached: ${cause.message}`, 'Start it there: nfactor machine FILE', { cause }))
    }
    socket.once('error', refuse)
    socket.once(authority === undefined ? 'connect' : 'secureConnect', () => {
      clearTimeout(timer)
      socket.off('error', refuse)
      socket.setNoDelay(true)
      resolve(socket)
    })
  })
}

/**
 * Unary call: the plainest call of the Connect protocol, answered by the shortest way. One message comes in the body of a POST, JSON or
 * binary; one goes out, or an error as JSON.
 *
 *     POST /nfactor.v1.Node/PollWorkload, content-type application/json or application/proto ─▶ 200, the same type, the message
 *                                                                                            └▶ 4xx, 5xx, {"code", "message", "details"}
 *
 * It is for what controllers ask all the time: Connect's own handler takes several times as long, in the thread that packets go through
 * (`bench/rpc`). Whatever is not as plain as that (GET, compression, streams, gRPC) is Connect's.
 */

import { create, fromBinary, fromJson, toBinary, toJsonString, type DescMethod, type Message } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { codeToHttpStatus, errorToJsonBytes } from '@connectrpc/connect/protocol-connect'
import { constants } from 'node:http2'
import type { IncomingMessage } from 'node:http'
import { CodedError } from '../base/coded-error.ts'
import type { HttpRequest, HttpResponse } from './http-listener.ts'
import { connectErrorFrom, connectErrorOf } from './rpc-error.ts'
import type { RpcLimits } from './rpc-limits.ts'
import type { RpcMethod } from './rpc-service.ts'

const JSON_TYPE = 'application/json'
const BINARY_TYPE = 'application/proto'
const TIMEOUT = 'connect-timeout-ms'

export interface UnaryMethod {
  readonly method: Pick<DescMethod, 'input' | 'output'>
  readonly call: RpcMethod
}

/** True for a call that {@link answerUnary} can answer. */
export function isPlainUnary({ method, headers }: HttpRequest, bytesMax: number): boolean {
  const type = headers['content-type']
  if (method !== 'POST' || (type !== JSON_TYPE && type !== BINARY_TYPE) || headers['content-encoding'] !== undefined) return false
  if (Number(headers['content-length'] ?? 0) > bytesMax) return false
  const timeout = headers[TIMEOUT]
  return timeout === undefined || (typeof timeout === 'string' && /^\d{1,10}$/.test(timeout))
}

/** Ends what is under way at either end. */
export function breakOff(request: HttpRequest, response: HttpResponse): void {
  if ('stream' in response) response.stream.close(constants.NGHTTP2_CANCEL)
  else request.destroy()
}

/**
 * @param refusal why the call is not done; the answer then, when the caller has said what he had to say
 * @param onDefect is told what the method throws that is no CodedError
 */
export function answerUnary({ method, call }: UnaryMethod, request: HttpRequest, response: HttpResponse,
  limits: RpcLimits, refusal: CodedError | undefined, onDefect: (reason: unknown) => void): void {
  const { requestBytesMax, answerBytesMax, requestMs, callMs } = limits
  const isJson = request.headers['content-type'] === JSON_TYPE
  const chunks: Buffer[] = []
  let bytes = 0
  let isOver = false
  let controller: AbortController | undefined
  let timer = setTimeout(() => { breakOff(request, response) }, requestMs)
  const context = {
    /** PERF: made for those who look at it. */
    get signal(): AbortSignal {
      controller ??= new AbortController()
      return controller.signal
    },
  }

  const send = (status: number, type: string, body: string | Uint8Array): void => {
    if (isOver) return
    isOver = true
    clearTimeout(timer)
    timer = setTimeout(() => { breakOff(request, response) }, callMs)
    const headers = { 'content-type': type, 'content-length': Buffer.byteLength(body) }
    if ('stream' in response) response.writeHead(status, headers)
    // HTTP/1.1 has no other way to be rid of what else the caller has to say.
    else response.writeHead(status, request.complete ? headers : { ...headers, connection: 'close' })
    response.end(body)
  }
  const fail = (reason: unknown): void => {
    const error = connectErrorFrom(reason, onDefect)
    send(codeToHttpStatus(error.code), JSON_TYPE, errorToJsonBytes(error, undefined))
    controller?.abort(error)
  }
  const answer = (value: unknown): void => {
    try {
      const message = create(method.output, value as Message)
      const body = isJson ? toJsonString(method.output, message, { alwaysEmitImplicit: true }) : toBinary(method.output, message)
      if (body.length > answerBytesMax) throw new CodedError('NF_RPC_LIMIT', `the answer is longer than ${answerBytesMax} bytes`, 'Ask for less')
      send(200, isJson ? JSON_TYPE : BINARY_TYPE, body)
    } catch (error) {
      fail(error)
    }
  }
  const begin = (): void => {
    clearTimeout(timer)
    if (isOver) return
    if (refusal !== undefined) return fail(refusal)
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)
    let message: Message
    try {
      message = isJson ? fromJson(method.input, JSON.parse(body.toString()), { ignoreUnknownFields: true }) : fromBinary(method.input, body)
    } catch (cause) {
      return fail(new ConnectError(`the request is no ${method.input.typeName}: ${(cause as Error).message}`, Code.InvalidArgument))
    }
    try {
      const result = call(message, context)
      if (!(result instanceof Promise)) return answer(result)
      const ms = Math.min(callMs, Number(request.headers[TIMEOUT] ?? callMs))
      timer = setTimeout(() => {
        fail(connectErrorOf(new CodedError('NF_NODE_GONE', `the call was not done in ${ms} ms`), Code.DeadlineExceeded))
      }, ms)
      result.then(answer, fail)
    } catch (error) {
      fail(error)
    }
  }

  // Both kinds of requests are streams; their types have no listener in common.
  const body = request as IncomingMessage
  body.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes <= requestBytesMax) {
      if (refusal === undefined) chunks.push(chunk)
    } else if (!isOver) {
      chunks.length = 0
      fail(connectErrorOf(new CodedError('NF_RPC_LIMIT', `the request is longer than ${requestBytesMax} bytes`)))
      if ('stream' in response) response.stream.close(constants.NGHTTP2_NO_ERROR)
    }
  })
  body.on('end', begin)
  response.once('close', () => {
    clearTimeout(timer)
    if (!isOver) controller?.abort(new ConnectError('the caller has gone', Code.Canceled))
    isOver = true
  })
}

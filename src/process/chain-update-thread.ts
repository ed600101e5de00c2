/**
 * Thread that checks a new version of a cluster's chain and ends: what it has loaded is forgotten with it.
 */

import { parentPort, workerData } from 'node:worker_threads'
import { CodedError } from '../base/coded-error.ts'
import { chainUpdate } from './chain-update.ts'
import { ClusterFolder } from './cluster-folder.ts'

const { folder, file, chainVersion } = workerData as { folder: string, file: string, chainVersion: number }
try {
  parentPort?.postMessage(await chainUpdate(new ClusterFolder(folder), chainVersion, { changes: file }))
} catch (error) {
  if (!(error instanceof CodedError)) throw error
  const { code, message, mend } = error
  parentPort?.postMessage({ code, message, mend })
}

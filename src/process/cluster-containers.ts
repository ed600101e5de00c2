/**
 * Cluster containers: what a cluster's containers need before its nodes are started, and what is left of them when it ends.
 */

import type { ClusterSpec } from './cluster-file.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import type { ClusterIdentity } from './cluster-members.ts'
import { ContainerEngine } from './container-engine.ts'
import { ownImage } from './container-image.ts'
import { ContainerLauncher, endContainers } from './container-launcher.ts'

/** How long the engine may take for what it was doing when a cluster ends. */
const END_MS = 5_000

/**
 * Sees to it that there are an engine and an image, and no containers of a former cluster in this folder.
 *
 * @returns name of the image; undefined for a cluster without containers
 * @throws CodedError `NF_CONTAINER_...`
 */
export async function prepareContainers({ container }: ClusterSpec, folder: ClusterFolder): Promise<string | undefined> {
  if (container === undefined) return undefined
  const engine = new ContainerEngine(container.socket)
  await engine.check()
  await endContainers(engine, folder)
  const { image } = container
  if (image === undefined) return (await ownImage(engine, () => { process.stderr.write('making an image for the containers\n') })).name
  if (await engine.imageCommand(image) === undefined) throw engine.missing(image)
  return image
}

/** The launcher of a cluster's containers; undefined if it has none. */
export function containersOf({ clusterId, spec, image }: ClusterIdentity, folder: ClusterFolder): ContainerLauncher | undefined {
  const { container, folder: specFolder } = spec
  if (container === undefined || image === undefined) return undefined
  return new ContainerLauncher({ engine: new ContainerEngine(container.socket), folder, clusterId, image, settings: container, specFolder })
}

/** Ends containers that were being started when the cluster ended. What the engine cannot do any more has ended with it. */
export async function endContainersOf({ container }: ClusterSpec, folder: ClusterFolder): Promise<void> {
  if (container === undefined) return
  const engine = new ContainerEngine(container.socket)
  for (const end = performance.now() + END_MS; performance.now() < end;) {
    const left = await endContainers(engine, folder).catch(() => 0)
    if (left === 0) break
  }
}

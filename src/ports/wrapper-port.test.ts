import { test } from 'node:test'
import { createMemoryPortPair } from './memory-port-pair.ts'
import { portContract } from './port-contract.ts'
import { WrapperPort } from './wrapper-port.ts'

for (const [name, check] of Object.entries(portContract)) {
  test(`wrapper port: ${name}`, () => { check(createMemoryPortPair((inner) => new WrapperPort(inner))) })
}

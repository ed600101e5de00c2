/**
 * To be preloaded (`node --import`) where files that import `nfactor` are run by something else than `nfactor`, such as
 * Node's test runner.
 */

import { installSdkResolution } from './sdk-resolution.ts'

installSdkResolution()

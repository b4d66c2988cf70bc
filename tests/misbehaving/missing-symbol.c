/* SPDX-License-Identifier: Apache-2.0 */
/* A library like any other. */
__attribute__((visibility("default"))) int acme_init(void) { return 0; }

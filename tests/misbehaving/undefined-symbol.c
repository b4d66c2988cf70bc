/* SPDX-License-Identifier: Apache-2.0 */
/* Calls a function that nobody has. */
#include "minimal.h"

int acme_missing_function(void* self, struct hookline_access* access);

const struct hookline_plugin hookline_plugin_v1 = {HOOKLINE_ABI, MINIMAL("undefined-symbol"), .access = acme_missing_function};

/* SPDX-License-Identifier: MIT
 *
 * The graph's objects; see graph.h.
 */
#include "graph.h"

/* SPDX-License-Identifier: MIT
 *
 * The control socket; see control.h.
 */
#include "control.h"

// What the operations use from elsewhere, ahead of a target: see target.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../activation.h"
#include "../attention.h"
#include "../recurrence.h"
#include "../target.h"
#include "ggml.h"
#include "vectors.h"

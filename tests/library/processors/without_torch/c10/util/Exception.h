// In place of PyTorch's: what must not happen ends the program.
#pragma once

#include <cstdlib>

#define TORCH_CHECK_VALUE(holds, ...) \
  if (!(holds)) std::abort()

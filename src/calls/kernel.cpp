// The table of the next library's calls, empty until interpose/ fills it.
#include "calls/kernel.h"

namespace shunt::calls {

constinit Kernel kernel{};

}  // namespace shunt::calls

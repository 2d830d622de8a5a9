// Whom the kernel names as the peer of a socket (SO_PEERCRED, SO_PEERGROUPS, SO_PEERSEC), and making it name the same
// behind another. Of the relay process alone: it changes its ids for that. Raw calls only.
#pragma once

namespace shunt {

// A socket pair. `alike`: whoever gets pair[0] is shown the user and the group of the peer of `original`, and no
// further group or label that he was not shown there. 0 or −errno.
long make_pair_like(int original, int (&pair)[2], bool& alike);

// The process is from here on, in /proc and for signals too, whom its pair shows.
void keep_ids();

}  // namespace shunt

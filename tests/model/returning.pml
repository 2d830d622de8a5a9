// Reads beside a retreat: one thread of Y leaves with bytes unread in the ring, another one goes on reading.
// X stays and is asked to put them back, or does nothing; or it has left the ring by itself before; or its stream ends, or it dies, at any moment.
// RELAY: the leaving thread may deliver all of it. DEATH: it is killed, and the reader goes on for it.
// Bytes are numbered; bells are left out: retreat.pml has them, and memory order. README.md: what is covered and why so.

#ifndef FIRST
#define FIRST 1     // bytes in the kernel before the up-fence, unread
#endif
#ifndef RINGED
#define RINGED 2    // bytes in the ring, unread
#endif
#ifndef NEWER
#define NEWER 2     // bytes that X sends afterwards
#endif
#ifndef QUEUE
#define QUEUE 2
#endif

#define ALL (FIRST + RINGED + NEWER)

chan kernel = [QUEUE] of { byte };
#define SOME (len(kernel) > 0)
#define ROOM (len(kernel) < QUEUE)
bool eof;
bool x_done, l_done, l_dead;

mtype = { Nothing, Frozen, PutBack, TakenOver, Kernel, Ring, Again, Returned };
// --- the channel, X->Y
mtype ask = Nothing, stage = Ring;
byte tail = RINGED, published, demote_at;      // published: head, as X sees it
bool writing;
// --- X
mtype out_flow = Ring;
byte sent, putback;
// --- Y, shared by its threads
byte y_lock;                                   // who has it; a dead one's is taken over
bool leaving, leaver, delivering, left_taken;
mtype in_flow = (FIRST > 0 -> Kernel : Ring);
byte head, received, leaving_from, leaving_to, left_end, left_kernel, left_read;
byte next = 1;

#define min(a, b) ((a) < (b) -> (a) : (b))
#define above(a, b) ((a) > (b) -> (a) - (b) : 0)
#define BEING_LEFT (leaver && leaving_from < leaving_to)
#define READER 1
#define LEAVER 2
inline lock() { atomic { y_lock == 0 || (l_dead && y_lock == LEAVER) -> y_lock = me } }
inline unlock() { y_lock = 0 }
inline take_kernel() { atomic { kernel?v; assert(v == next); next++; v = 0 } }
inline take_ring() { d_step { assert(FIRST + head + 1 == next); next++; head++; published = head } }

// ---------------------------------------------------------------- the end X

// In sections of `writing`. A kill leaves it set.
inline put_back() {
  writing = true;
  do
  :: ask == TakenOver -> out_flow = Again; break
  :: ask != TakenOver && published + putback < tail && ROOM ->
     v = FIRST + published + putback + 1;
     kernel!v;
     if
     :: eof = true; goto gone                                // in the middle
     :: putback++; demote_at = published + putback; v = 0
     fi
  :: ask != TakenOver && published + putback < tail && !ROOM -> break
  :: ask != TakenOver && published + putback == tail -> out_flow = Again; stage = Returned; break
  od;
  writing = false
}

proctype x() {
  byte v;
  do
  :: ask == Nothing && out_flow == Ring ->                   // its own down-fence
     atomic { if :: ask == Nothing -> demote_at = tail; stage = Again; out_flow = Again :: else fi }
  :: out_flow == Ring && (ask == PutBack || ask == TakenOver) -> put_back()
  :: out_flow == Again && sent < NEWER && ROOM -> atomic { sent++; v = FIRST + RINGED + sent; kernel!v; v = 0 }
  :: eof = true; break                                       // shut down, closed or killed
  :: break                                                   // in no call any more
  od;
gone:
  x_done = true
}

// ---------------------------------------------------------------- the end Y: one read of one byte

inline advance() {
  d_step {
    if :: in_flow == Kernel && received == FIRST -> in_flow = Ring :: else fi;
    if :: in_flow == Ring && stage == Again && head == demote_at -> in_flow = Again :: else fi
  }
}

inline take_over(over) {
  ask = TakenOver;
  over = !writing;
  put = above(min(demote_at, leaving_to > 0 && left_end == 0 -> leaving_to : left_end), head)
}

inline left_to_us() {
  if
  :: stage == Returned -> skip
  :: else -> d_step { left_kernel = left_kernel + put - left_read; left_read = 0; head = head + put; left_taken = true }
  fi
}

inline read_left() {
  if
  :: left_end <= head || (!left_taken && stage == Returned) -> left_end = 0
  :: left_end > head && !left_taken && stage != Returned ->
     take_over(over);
     if
     :: over -> left_to_us()
     :: !over && !eof -> skip                                // it is just putting them back
     :: !over && eof ->
#ifndef MUTANT_DEAD_AT_FIRST_SIGHT
        if
        :: !writing -> skip                                  // it has seen the question meanwhile: once more
        :: writing ->
#else
        if
        :: true ->
#endif
           put = min(above(len(kernel) + left_read, left_kernel), left_end - head);
           left_to_us()
        fi
     fi
  :: left_end > head && left_taken ->
     if
     :: left_kernel > 0 && SOME -> take_kernel(); left_kernel--
     :: left_kernel > 0 && !SOME -> left_kernel = 0
     :: left_kernel == 0 -> take_ring(); if :: head >= left_end -> left_end = 0 :: else fi
     fi
  fi
}

// Lock-free, in the kernel: nothing is left in the ring, and nobody leaves.
inline read_kernel_alone() {
  if
  :: atomic { SOME -> kernel?v; assert(v == next); next++; v = 0 }
  :: d_step { !SOME && eof -> assert(next == FIRST + RINGED + sent + 1) }
  :: atomic { !SOME && !eof }
  fi
}

inline read() {
  alone = false;
  lock();
  advance();
  if
  :: in_flow == Kernel -> if :: SOME -> take_kernel(); received++ :: else fi
  :: in_flow == Ring -> if :: !leaving && head < tail -> take_ring() :: else fi
#ifndef MUTANT_READ_WHILE_DELIVERING
  :: in_flow == Again && delivering -> skip
  :: in_flow == Again && !delivering && left_end != 0 -> read_left()
  :: in_flow == Again && !delivering && left_end == 0 ->
#else
  :: in_flow == Again && left_end != 0 -> read_left()
  :: in_flow == Again && left_end == 0 ->
#endif
#ifndef MUTANT_READ_UNCOUNTED
     if
     :: BEING_LEFT -> if :: SOME -> take_kernel(); left_read++ :: else fi
     :: else -> alone = true
     fi
#else
     alone = true
#endif
  fi;
  unlock();
  if :: alone -> read_kernel_alone() :: else fi
}

// ---------------------------------------------------------------- the threads of Y

inline freeze_incoming() {
  lock();
  leaver = true;
  leaving = true;
  atomic { if :: ask == Nothing -> ask = Frozen :: else fi };
  unlock();
  !writing || eof
}

inline leave_incoming() {
  lock();
  advance();
  if
  :: in_flow == Again ->
     if
     :: left_end > head && !(stage == Returned && !left_taken) -> d_step { first = left_kernel; begin = head; end = left_end }
     :: else
     fi
  :: in_flow != Again ->
     d_step {
       first = (in_flow == Kernel -> FIRST - received : 0);
       begin = head;
       end = (stage == Again -> min(tail, demote_at) : tail)
     };
#ifdef MUTANT_KEEP_WHAT_THE_DEAD_NOTED
     if
     :: left_end == 0 -> left_kernel = first; left_read = 0; leaving_from = begin; leaving_to = end
     :: else
     fi;
#else
     left_end = 0;                                           // of one that died before in_flow said that all this holds
     left_taken = false;
     left_kernel = first;
     left_read = 0;
     leaving_from = begin;
     leaving_to = end;
#endif
     if
     :: end > begin && (stage == Again || eof) -> already = true; left_taken = true; left_end = end
     :: else
     fi;
     in_flow = Again
  fi;
  if :: ask == Frozen -> ask = PutBack :: else fi;
  unlock()
}

inline leave_to_family() {
  lock();
  if :: left_end == 0 -> left_end = leaving_to :: else fi;
  unlock()
}

inline has_left() { leaving_to = 0; delivering = false; leaver = false }

inline finish_retreat() {
  freeze_incoming();
  leave_incoming();
  if :: stage != Returned -> leave_to_family() :: else fi;
  has_left()
}

inline read_or_finish() {
  if
  :: l_dead && leaver -> finish_retreat()
  :: else
  fi;
  read()
}

proctype reader() {
  byte v, put, n, first, begin, end;
  bool over, alone, already;
  byte me = READER;
  do
  :: read_or_finish()
  :: (l_done || l_dead) && x_done -> break
  od;
  do                                                         // everything that was sent is there
  :: n < 3 * ALL + 3 -> read_or_finish(); n++
  :: else -> break
  od;
  assert(next == FIRST + RINGED + sent + 1)
}

// It gives the program what the kernel has, what the ring has, and then whatever comes: here, to nobody else.
inline relay() {
  if
  :: eof ->                                                  // counted_in_kernel()
     d_step {
       put = above(len(kernel) + left_read, first);
       first = len(kernel)
     }
  :: true ->
     do
     :: take_over(taking_over);
        if
        :: taking_over -> break
        :: !taking_over && eof && writing -> put = above(len(kernel) + left_read, first); break
        :: !taking_over && !(eof && writing) -> skip
        fi
     od;
     first = above(first + put, left_read)
  fi;
  begin = min(begin + put, end);
  do
  :: first > 0 && SOME -> take_kernel(); first--
  :: first > 0 && !SOME && eof -> first = 0
  :: first == 0 && begin < end -> d_step { assert(FIRST + begin + 1 == next); next++; begin++ }
  :: first == 0 && begin == end -> break
  od;
  left_end = 0
}

#ifdef DEATH
proctype killer() { atomic { if :: !l_done -> l_dead = true :: else fi } }
proctype leaves() provided (!l_dead) {
#else
proctype leaves() {
#endif
  byte first, begin, end;
  bool already;
  byte me = LEAVER;
#ifdef RELAY
  byte v, put;
  bool taking_over;
#endif
  freeze_incoming();
  leave_incoming();
  // deliver_unread()
  if
  :: end <= begin -> goto over
  :: else
  fi;
  do
  :: stage == Returned -> goto over
  :: stage != Returned -> break                              // it has waited long enough
  od;
#ifndef MUTANT_READ_WHILE_DELIVERING
  lock(); delivering = true; unlock();
#endif
  if
  :: already -> skip                                         // the family has it
  :: !already -> leave_to_family()
#ifdef RELAY
  :: !already -> relay()
#endif
  fi;
#ifndef MUTANT_READ_WHILE_DELIVERING
  lock(); delivering = false; unlock();
#endif
over:
  has_left();
  l_done = true
}

init {
  byte v;
  atomic {
    do
    :: v < FIRST -> v++; kernel!v
    :: else -> break
    od;
    run x(); run reader(); run leaves()
#ifdef DEATH
    ; run killer()
#endif
  }
}

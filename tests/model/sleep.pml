// Sleeping and waking: arm words, bells, two kinds of sleeper on one kernel socket, under store buffers (TSO).
// The end X publishes data in the ring X->Y (x_writer) and space in the ring Y->X (x_reader), and rings; at the end Y a
// reader sleeps for data and a writer for space, both in a poll of the same socket. README.md: what is covered and why so.
//
// Two encodings keep the state small and lose nothing:
// - An arm word and the waker's private note of the sequence it last rang for are one bit here, `unrung`: "armed, with a
//   sequence not rung for". The waker's one load of the word decides, so load and note are one step.
// - bells_rung and `taken` are one number, `owing` = rung - taken; a look at bells_rung gives `allow` = the part of it that
//   may be taken, which shrinks when another thread takes some.

#ifndef DATA
#define DATA 2      // bytes x_writer puts into the ring X->Y
#endif
#ifndef ROOM
#define ROOM 1      // bytes x_reader takes out of the ring Y->X, which starts full
#endif
#ifndef READERS
#define READERS 1   // threads that sleep for data (they share one arm word)
#endif
// NO_WRITER: nobody sleeps for space. QUITS: a reader may stop after any byte. THIEF: a thread reads and never sleeps. SIGNAL=n: n signals.
// DEMOTE: X demotes at the end. KILL: X is killed at any instant.
#ifdef KILL
#define LIVES provided (!killed)
#else
#define LIVES
#endif

#define FOR_DATA 0
#define FOR_SPACE 1
#define WRITER 0                    // sleeper 0 is the writer, 1.. are readers
#define SLEEPERS (READERS + 1)

// --- the kernel socket X->Y: bell bytes, then perhaps a data byte behind the down-fence
byte bells;
bool data_behind, eof, killed;
// --- the channel
byte unread;                        // tail - head of the ring X->Y
byte space;                         // free bytes in the ring Y->X
bool again;                         // X->Y: stage is KERNEL_AGAIN
bool unrung[2] = true;              // arm words (a channel starts with the data arm set; here both are)
byte owing;                         // bells_rung - taken
// --- the side of X
bool x_lock;                        // X's write lock: bells and the down-fence
// --- the side of Y
byte asleep_for[2];                 // registered sleepers
byte allow[SLEEPERS];
#ifdef SIGNAL
byte signals = SIGNAL;              // signals still to come for the sleepers
#endif
// --- store buffers, one entry each
byte arm_buffered[SLEEPERS];        // 0 or 1 + kind
bool tail_buffered, space_buffered;
// --- for the monitor
bool in_kernel[SLEEPERS], done[SLEEPERS];
byte readers;

#define CAN_READ  (unread > 0 || again || eof)
#define CAN_WRITE (space > 0 || again || eof)
#ifdef MUTANT_STAGE_BEFORE_COUNT
#define OTHER_CAN_WRITE (space > 0 || eof)
#else
#define OTHER_CAN_WRITE CAN_WRITE
#endif
#define CAN(kind) ((kind == FOR_DATA && CAN_READ) || (kind == FOR_SPACE && CAN_WRITE))

inline flush_arm(me) {
  d_step { if :: arm_buffered[me] -> unrung[arm_buffered[me] - 1] = true; arm_buffered[me] = 0 :: else fi }
}
inline store_arm(me, kind) { d_step { flush_arm(me); arm_buffered[me] = kind + 1 } }
inline flush_tail() { d_step { if :: tail_buffered -> unread++; tail_buffered = false :: else fi } }
inline flush_space() { d_step { if :: space_buffered -> space++; space_buffered = false :: else fi } }

// The hardware empties store buffers when it likes.
active proctype memory() {
  do
  :: d_step { tail_buffered -> unread++; tail_buffered = false }
  :: d_step { space_buffered -> space++; space_buffered = false }
  :: d_step { arm_buffered[0] -> flush_arm(0) }
  :: d_step { arm_buffered[1] -> flush_arm(1) }
#if READERS > 1
  :: d_step { arm_buffered[2] -> flush_arm(2) }
#endif
  od
}

// ---------------------------------------------------------------- the end X: wakers

inline send_bell() {
  assert(!data_behind);             // a bell behind the down-fence would be read as data
  bells++
}

inline ring(kind) {
  if
  :: d_step { unrung[kind] -> unrung[kind] = false };        // one load; the note is private
#ifdef MUTANT_RING_UNLOCKED
     if
     :: !again -> owing++; send_bell()
     :: else
     fi
#else
     if
     :: d_step { !x_lock && !again -> x_lock = true; owing++ };
        d_step { send_bell(); x_lock = false }
     :: d_step { !x_lock && again -> skip }                  // the last bell has woken everybody
     fi
#endif
  :: else
  fi
}

active proctype x_writer() LIVES {
  byte n;
  do
  :: n < DATA ->
     d_step { flush_tail(); tail_buffered = true; n++ };     // publish
#ifndef MUTANT_WAKER_NO_BARRIER
     flush_tail();                                           // full barrier
#endif
     ring(FOR_DATA)
  :: else -> break
  od;
#ifdef DEMOTE
  d_step { !x_lock -> x_lock = true; flush_tail() };         // (taking a lock empties the buffer)
#ifdef MUTANT_LAST_BELL_BEFORE_STAGE
  owing++; send_bell(); again = true;
#elif defined(MUTANT_LAST_BELL_COUNTED_BEFORE_STAGE)
  owing++; again = true; send_bell();
#elif defined(MUTANT_NO_LAST_BELL)
  again = true;
#else
  again = true; owing++; send_bell();                        // what the bell announces, its count, the bell
#endif
  if
  :: data_behind = true
  :: skip
  fi;
  x_lock = false
#endif
}

active proctype x_reader() LIVES {
  byte n;
  do
  :: n < ROOM ->
     d_step { flush_space(); space_buffered = true; n++ };
#ifndef MUTANT_WAKER_NO_BARRIER
     flush_space();
#endif
     ring(FOR_SPACE)
  :: else -> break
  od
}

#ifdef KILL
// Death at any instant: what was executed becomes visible, then the kernel closes the socket.
active proctype killer() { d_step { killed = true; flush_tail(); flush_space() }; eof = true }
#endif

// ---------------------------------------------------------------- the end Y: sleepers

inline take_one() {
  bells--; owing--;
  if :: allow[0] > 0 -> allow[0]-- :: else fi;
  if :: allow[1] > 0 -> allow[1]-- :: else fi;
#if READERS > 1
  if :: allow[2] > 0 -> allow[2]-- :: else fi
#endif
}

// Takes the bells that were counted when the look began, never more: what lies behind is a later bell, or data.
inline drain(me) {
#ifdef MUTANT_DRAIN_UNLOCKED
  mine_to_take = allow[me];
  do
  :: mine_to_take > 0 && bells > 0 -> mine_to_take--; if :: d_step { bells > 0 -> take_one() } :: else assert(!data_behind) fi
  :: else -> mine_to_take = 0; break
  od
#else
  d_step {                                                   // under Y's read lock
#ifdef MUTANT_LATE_COUNT
    allow[me] = owing;
#endif
#ifdef MUTANT_RELATIVE_COUNT
    allow[me] = (snapshot < owing -> snapshot : owing);
#endif
    do
    :: allow[me] > 0 && bells > 0 -> take_one()
    :: else -> assert(!(allow[me] > 0 && data_behind)); break  // the next byte taken as a bell would be data
    od;
    allow[me] = 0
  }
#endif
}

#define OTHER_READERS (asleep_for[FOR_DATA] - (mine == FOR_DATA -> 1 : 0))
#define OTHER_WRITERS (asleep_for[FOR_SPACE] - (mine == FOR_SPACE -> 1 : 0))

// One wait: arm() in look.cpp, then look() and the sleep in sleep.cpp. The caller tries again, and waits again.
inline wait_for(me, mine, other) {
  asleep_for[mine]++;
#ifdef MUTANT_STAGE_BEFORE_COUNT
  if
  :: again -> slice = true
  :: else
  fi;
#endif
#ifdef MUTANT_RELATIVE_COUNT
  snapshot = owing;
#endif
  allow[me] = owing;                                         // first: bells counted later belong to later looks
  store_arm(me, mine);
#ifndef MUTANT_ARM_ONLY_MINE
  if
  :: asleep_for[other] > 0 -> store_arm(me, other)           // the bell about to vanish was his wake-up too
  :: else
  fi;
#endif
#ifndef MUTANT_SLEEPER_NO_BARRIER
  flush_arm(me);                                             // full barrier
#endif
  if
  :: allow[me] > 0 ->
#ifndef MUTANT_DRAIN_SELFISH
     if
     :: OTHER_WRITERS > 0 && OTHER_CAN_WRITE -> slice = true       // his bell: leave it
     :: else
     fi;
#ifndef MUTANT_IGNORE_TWIN
     if
     :: OTHER_READERS > 0 && CAN_READ -> slice = true
     :: else
     fi;
#endif
#endif
     if
     :: !slice -> drain(me)
     :: else
     fi
  :: else
  fi;
  if
  :: CAN(mine) || slice                                      // a short sleep, not modelled: it ends by itself
  :: else ->
     atomic { in_kernel[me] = true; allow[me] = 0 };         // a byte that is gone again when we get to run wakes nobody
     if
     :: atomic { bells > 0 || data_behind || eof -> in_kernel[me] = false }
#ifdef SIGNAL
     :: atomic { signals > 0 -> signals--; in_kernel[me] = false; interrupted = true }
#endif
     fi
  fi;
  atomic { asleep_for[mine]--; allow[me] = 0; slice = false }
}

active proctype y_writer() {
  bool interrupted, slice;
#ifdef MUTANT_DRAIN_UNLOCKED
  byte mine_to_take;
#endif
#ifdef MUTANT_RELATIVE_COUNT
  byte snapshot;
#endif
next:
  if
#ifdef NO_WRITER
  :: done[WRITER] = true
#endif
  :: atomic { CAN_WRITE -> done[WRITER] = true }
#ifndef NO_WRITER
  :: else ->
     wait_for(WRITER, FOR_SPACE, FOR_DATA);
     if
     :: atomic { interrupted -> done[WRITER] = true }        // EINTR, and the program never writes again
     :: else -> goto next
     fi
#endif
  fi
}

active [READERS] proctype y_reader() {
  bool interrupted, slice;
#ifdef MUTANT_DRAIN_UNLOCKED
  byte mine_to_take;
#endif
#ifdef MUTANT_RELATIVE_COUNT
  byte snapshot;
#endif
  byte me;
  atomic { readers++; me = readers };
next:
  if
  :: atomic { unread > 0 -> unread-- } -> goto next
#ifdef QUITS
  :: atomic { unread > 0 -> unread--; done[me] = true }      // and the program never reads again
#endif
  :: atomic { unread == 0 && !again && eof -> done[me] = true }
  :: unread == 0 && again ->                                 // the down-fence: take what bells there are and turn to the kernel
#ifndef MUTANT_TAKE_THE_LAST_BELL
     asleep_for[FOR_SPACE] == 0;                             // but the last bell is also for the writer
#endif
     allow[me] = owing;
     drain(me);
     done[me] = true
  :: else ->
     wait_for(me, FOR_DATA, FOR_SPACE);
     if
     :: atomic { interrupted -> done[me] = true }            // EINTR, and the program never reads again
     :: else -> goto next
     fi
  fi
}

#ifdef THIEF
// A thread that reads once and never sleeps: a non-blocking reader, a signal handler.
active proctype thief() { d_step { if :: unread > 0 -> unread-- :: else fi } }
#endif

// Nobody can take a step: whoever sleeps must have nothing to do.
active proctype monitor() {
  timeout ->
  d_step {
    assert(done[WRITER] || (in_kernel[WRITER] && !CAN_WRITE));
    assert(done[1] || (in_kernel[1] && !CAN_READ));
#if READERS > 1
    assert(done[2] || (in_kernel[2] && !CAN_READ));
#endif
  }
}

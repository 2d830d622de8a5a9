// Retreat: Y leaves both directions at once, whatever X is doing, and from then on reads the kernel as any program does.
// The direction X->Y in full; of Y->X only what wakes X: the down-fence and its last bell. README.md: what is covered and why so.
// Bytes are numbered as in fence.pml; a bell is 0.

#ifndef BYTES
#define BYTES 4     // bytes X sends in all
#endif
#ifndef SPACE_BELLS
#define SPACE_BELLS 1
#endif
#ifndef QUEUE
#define QUEUE 2     // less than the ring may hold: putting back has to wait for room
#endif
#ifdef KILL
#define LIVES provided (!killed)
#else
#define LIVES
#endif

#define BELL 0
#define KERNEL 0
#define RING 1
#define AGAIN 2

chan kernel = [QUEUE] of { byte };
#define SOME (len(kernel) > 0)
#define NONE (len(kernel) == 0)
#define ROOM (len(kernel) < QUEUE)
bool killed, eof;
// --- the channel, X->Y
byte stage, kernel_total, tail, head, bells_rung;
bool unrung = true;                 // the data arm (see sleep.pml)
bool passed, frozen;                // frozen: ask == frozen, or what follows it
bool allowed;                       // ask == put_back
#ifdef DEATH
bool dies = true;                   // a member of X's family is killed with a bell counted and not sent
#endif
bool taken_over;                    // ask == kTakenOver: Y delivers the rest of the ring by itself
byte writing;
bool writing_buffered;              // X's store of `writing` = 1 is still in its store buffer
// --- Y->X
bool y_again;                       // Y's down-fence
byte y_bells;                       // Y's last bell, on X's socket
// --- sides
bool x_lock;
byte out_flow, sent, kernel_sent, putback;
byte in_flow, received, taken, next = 1;
// --- what must be so
bool leaving;                       // no thread of Y takes from the ring any more
bool freeze_seen, left;             // Y saw that X is not writing; Y is gone: its socket belongs to a program
bool x_asleep, y_asleep;

#define flush_writing if :: writing_buffered -> writing = 1; writing_buffered = false :: else fi

active proctype memory() {
  do
  :: d_step { writing_buffered -> writing = 1; writing_buffered = false }
  od
}

// ---------------------------------------------------------------- the end X

inline lock() { d_step { !x_lock -> x_lock = true; flush_writing } }
inline unlock() { d_step { x_lock = false; flush_writing } }

// Writing: announces itself, then looks at `ask`. No barrier: Y's membarrier stands for it.
inline begin_writing() { atomic { flush_writing; writing_buffered = true } }
inline end_writing() { d_step { flush_writing; writing = 0 } }

inline send_bell(fits) {
  fits = false;
  if
#ifdef MUTANT_BELL_BEHIND_DATA
  :: ROOM ->
#else
  :: (passed || NONE) && ROOM ->
#endif
     d_step { flush_writing; bells_rung++ };
     assert(!left);                                          // it would be read as data
#ifdef DEATH
     if
     :: d_step { dies -> dies = false }
     :: kernel!BELL
     fi;
     fits = true
#else
     kernel!BELL; fits = true
#endif
  :: else
  fi
}

// What Y left unread goes back through the kernel, before anything else. As often as it takes, unless Y takes over.
inline put_back() {
#ifndef MUTANT_PUT_BACK_OUTSIDE_WRITING
  begin_writing();
#endif
  do
#ifndef MUTANT_PUT_BACK_UNASKED
  :: taken_over -> out_flow = AGAIN; break
  :: !taken_over -> break
#else
  :: break
#endif
  od;
  do
  :: out_flow == RING && head + putback < tail && ROOM ->
     d_step { v = kernel_total + head + putback + 1; putback++ }
     kernel!v; v = 0
  :: out_flow == RING && head + putback < tail && !ROOM -> break
  :: out_flow != RING || head + putback == tail -> out_flow = AGAIN; break
  od;
#ifndef MUTANT_PUT_BACK_OUTSIDE_WRITING
  end_writing()
#endif
}

// The arm was found unanswered: one bell.
inline ring(fits) {
  lock();
  if
  :: out_flow == RING ->
#ifndef MUTANT_BELL_OUTSIDE_WRITING
     begin_writing();
#endif
     if
     :: !frozen -> send_bell(fits)
     :: else
     fi;
#ifndef MUTANT_BELL_OUTSIDE_WRITING
     end_writing()
#endif
  :: else
  fi;
  unlock()
}

active proctype x_writer() LIVES {
  byte v;
  bool fits, wrote, was_frozen;
  do
  :: sent < BYTES ->
     lock();
     if
#ifdef MUTANT_PUT_BACK_AT_ONCE
     :: frozen && out_flow != AGAIN ->
#else
     :: frozen && allowed && out_flow != AGAIN ->
#endif
#ifdef MUTANT_NEW_DATA_FIRST
        if
        :: ROOM -> sent++; kernel!sent
        :: else
        fi;
#endif
        put_back()
     :: !frozen && out_flow == KERNEL ->
        if
        :: begin_writing();                                  // up-fence
           if
           :: !frozen -> d_step { flush_writing; kernel_total = kernel_sent; stage = RING; out_flow = RING; assert(!freeze_seen) }
           :: else
           fi;
           end_writing()
        :: skip
        fi
     :: else
     fi;
     wrote = false;
     if
     :: out_flow == RING && (!frozen || putback == 0) ->
        begin_writing();
        if
        :: !frozen ->
#ifdef HANDLER
           if                                                // a signal handler writes, inside the interrupted section
           :: sent < BYTES - 1 ->
              begin_writing();
              if
              :: !frozen -> d_step { flush_writing; tail++; sent++; assert(!freeze_seen) }
              :: else
              fi;
#ifdef MUTANT_NESTED_CLEARS
              end_writing()
#endif
           :: skip
           fi;
#endif
           d_step { flush_writing; tail++; sent++; wrote = true; assert(!freeze_seen) }
        :: else                                              // next time round
        fi;
        end_writing()
     :: out_flow == RING && frozen && putback > 0 -> skip
     :: out_flow != RING && ROOM -> d_step { sent++; kernel_sent++ }; kernel!sent
     :: out_flow != RING && !ROOM -> skip
     fi;
     unlock();
     if
     :: d_step { wrote && unrung -> unrung = false };
        ring(fits);
        if
        :: !fits -> unrung = true                            // nobody was asleep: not noted as rung for
        :: else
        fi
     :: else
     fi;
     if
     :: frozen || out_flow != RING -> ROOM                   // a blocking write waits for room in the kernel
     :: else
     fi
  :: break
  od;
  // Nothing more to send: X sleeps in a read until Y says something, which it never does.
  do
#ifdef MUTANT_LOOK_BEFORE_STAGE
  :: was_frozen = frozen; if :: y_again && y_bells > 0 -> y_bells = 0 :: !(y_again && y_bells > 0) fi;
#else
  :: if :: y_again && y_bells > 0 -> y_bells = 0 :: !(y_again && y_bells > 0) fi;  // advance_incoming()
     was_frozen = frozen;
#endif
     if
     :: was_frozen && out_flow != AGAIN ->
        allowed;                                             // it looks again by itself
        lock();
        put_back();
        unlock()
     :: else
     fi;
     if
#ifndef MUTANT_PUT_BACK_ONCE
     :: was_frozen && out_flow == RING -> x_asleep = true; ROOM; x_asleep = false
     :: !(was_frozen && out_flow == RING) ->
#else
     :: skip ->
#endif
        x_asleep = true; y_bells > 0; x_asleep = false;
        if :: !y_again -> y_bells = 0 :: else fi             // a bell that announces nothing
     fi
  od
}

active proctype x_reader() LIVES {
  bool fits;
  byte n;
  do
  :: n < SPACE_BELLS -> n++;
#ifdef MUTANT_SPACE_BELL_UNASKED
     lock();
     if
     :: out_flow == RING -> send_bell(fits)
     :: else
     fi;
     unlock()
#else
     ring(fits)
#endif
  :: break
  od
}

#ifdef KILL
active proctype killer() { d_step { killed = true; flush_writing }; eof = true }
#endif

// ---------------------------------------------------------------- the end Y

inline pass() {
  atomic { if :: stage == RING && in_flow == KERNEL && received == kernel_total -> in_flow = RING; passed = true :: else fi }
}

active proctype y() {
  byte v, n, p;
  do                                                         // reads as an end with the library does (see fence.pml), then leaves
  :: pass();
     if
     :: atomic { in_flow == KERNEL && SOME && (stage == KERNEL || received < kernel_total) ->
                 kernel?v; assert(v == next); next++; received++; v = 0 }
     :: atomic { in_flow == RING && head < tail -> assert(kernel_total + head + 1 == next); head++; next++ }
     :: atomic { in_flow == RING && taken < bells_rung && SOME -> kernel?v; assert(v == BELL); taken++ }
     :: break
     fi
  :: break
  od;
#ifdef MUTANT_ASK_AFTER_LAST_BELL
  y_again = true; y_bells++;
#endif
#ifndef MUTANT_NOT_LEAVING
  leaving = true;                                            // under Y's read lock
#endif
  frozen = true;
#ifndef MUTANT_NO_MEMBARRIER
  d_step { flush_writing };
#endif
#ifndef MUTANT_NO_WAIT
  writing == 0 || eof;
#endif
  freeze_seen = true;
  pass();
  do
  :: in_flow == RING && SOME -> kernel?v; assert(v == BELL); taken++   // X is silent: whatever lies there
  :: in_flow == KERNEL || NONE ->
#ifndef DEATH
     assert(in_flow == KERNEL || taken == bells_rung || killed);  // what was counted has arrived
#endif
     break
  od;
  left = true;
  allowed = true;
#ifndef MUTANT_ASK_AFTER_LAST_BELL
  y_again = true;
#ifndef MUTANT_NO_LAST_BELL
  y_bells++;
#endif
#endif
#ifdef TAKE_OVER
  if
  :: stage == RING ->                                        // X does not act: a relay, or our family, takes over
     taken_over = true;
#ifndef MUTANT_TAKE_OVER_NO_MEMBARRIER
     d_step { flush_writing };
#endif
#ifndef MUTANT_TAKE_OVER_NO_WAIT
     writing == 0 || eof;
#endif
     d_step {
       n = (in_flow == KERNEL -> kernel_total - received : 0);
       p = putback;
       if
       :: eof && writing != 0 -> p = len(kernel) - n         // killed in the middle: nothing else lies there
       :: else
       fi;
       n = n + p
     };
     do
     :: n > 0 -> atomic { (SOME || eof); if :: SOME -> kernel?v; assert(v == next); next++; v = 0 :: else fi }; n--
     :: n == 0 -> break
     od;
     do
     :: head + p < tail -> d_step { assert(kernel_total + head + p + 1 == next); next++; p++ }
     :: head + p >= tail -> break
     od
  :: skip
  fi;
#endif
  do                                                         // the program that follows
  :: y_asleep = true;
     atomic { SOME -> kernel?v; y_asleep = false; assert(v == next); next++; v = 0 }
  od
}

#ifdef TWIN
// Another thread of Y, which reads the ring as long as it may; each read is one step under Y's read lock.
active proctype y_twin() {
  do
  :: atomic { in_flow == RING && !leaving && head < tail -> assert(kernel_total + head + 1 == next); head++; next++ }
  od
}
#endif

active proctype monitor() {
  timeout ->
  assert(left && y_asleep);
  assert(killed || x_asleep);
  assert(killed || next == sent + 1)
}

// The fences of one direction X->Y: kernel, ring, kernel again, with bells in between. README.md: what is covered and why so.
// Bytes are numbered 1, 2, 3...; a bell is 0. What X has committed (taken by the kernel, or published by tail) must reach the
// program at Y in order, once, and nothing else: `next` is the number of the next byte, checked when it leaves kernel or ring.
// A ring byte needs no store of its own: the one at position p is number kernel_total + p + 1.

#ifndef BYTES
#define BYTES 4     // bytes X sends in all; where the fences lie among them is free
#endif
#ifdef MUTANT_TWO_OLD_READERS
#undef OLD
#define OLD 2
#endif
#ifndef OLD
#define OLD 0       // threads of Y that have been in a kernel read since before the channel
#endif
#ifndef SPACE_BELLS
#define SPACE_BELLS 1  // bells that X's reading thread rings for space
#endif
#ifndef QUEUE
#define QUEUE 3     // what the kernel queue holds before it refuses
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
#define SOME (len(kernel) > 0)
#define NONE (len(kernel) == 0)
#define ROOM (len(kernel) < QUEUE)

chan kernel = [QUEUE] of { byte };
bool killed, eof;
// --- the channel
byte stage, kernel_total, demote_at, bells_final;
byte tail, head;
byte bells_rung;
#ifdef MUTANT_NO_INITIAL_ARM
bool unrung;
#else
bool unrung = true;                 // the data arm: armed, and not rung for (see sleep.pml)
#endif
bool passed;
bool old_readers = (OLD > 0);
// --- the side of X
bool x_lock;
byte out_flow, sent, kernel_sent;
bool owed;                          // the last bell, refused by the kernel: nothing else goes before it
// --- the side of Y
bool y_lock;
byte in_flow, received, taken;
byte kernel_readers = OLD;
byte next = 1;
// --- for the monitor
bool in_kernel, done;

// ---------------------------------------------------------------- the end X

inline lock(which) { atomic { !which -> which = true } }
inline unlock(which) { which = false }

// A bell never lies behind a data byte (SIOCOUTQ), and room is made sure of before it is counted: with the lock held the queue
// can only get shorter. Counting it first and taking the count back lets a later bell bear a number that was looked at already.
inline send_bell(fits) {
  fits = false;
  if
  :: passed || NONE ->
#if defined(MUTANT_REFUSED_BELL_COUNTED) || defined(MUTANT_REFUSED_BELL_UNCOUNTED)
     bells_rung++;
     if
     :: atomic { ROOM -> kernel!BELL; fits = true }
#ifdef MUTANT_REFUSED_BELL_COUNTED
     :: !ROOM
#else
     :: !ROOM -> bells_rung--
#endif
     fi
#else
     if
     :: ROOM -> bells_rung++; kernel!BELL; fits = true
     :: !ROOM
     fi
#endif
  :: else
  fi
}

inline demote() {
  if
  :: out_flow == RING && old_readers && !passed              // not yet: what they get past the up-fence they take for bells
#ifdef MUTANT_DEMOTE_PAST_OLD_READERS
     -> goto demote_anyway
#endif
  :: out_flow == RING && !(old_readers && !passed) ->
#ifdef MUTANT_DEMOTE_PAST_OLD_READERS
demote_anyway:
#endif
     demote_at = tail;
     if
     :: passed || NONE -> owed = true
     :: else
     fi;
#ifdef MUTANT_LAST_BELL_NOT_IN_TOTAL
     bells_final = bells_rung;
#else
     bells_final = bells_rung + (owed -> 1 : 0);
#endif
     stage = AGAIN;
     bells_rung = bells_rung + (owed -> 1 : 0);
     out_flow = AGAIN
  :: out_flow == KERNEL ->
     if
     :: old_readers                                          // goes on as before the up-fence
     :: else -> kernel_total = kernel_sent; demote_at = 0; bells_final = 0; stage = AGAIN
     fi;
     out_flow = AGAIN
  :: out_flow == AGAIN
  fi
}

active proctype x_writer() LIVES {
  bool fits, wrote;
  do
  :: sent < BYTES ->
     lock(x_lock);
     wrote = false;
     if
     :: out_flow == KERNEL ->
#ifdef MUTANT_TOTAL_AFTER_STAGE
        stage = RING; kernel_total = kernel_sent;
#else
        kernel_total = kernel_sent; stage = RING;
#endif
        out_flow = RING
     :: out_flow != AGAIN -> demote()
     :: skip
     fi;
     if
     :: owed ->
        if
        :: atomic { ROOM -> kernel!BELL; owed = false }
        :: !ROOM
        fi
     :: else
     fi;
     if
     :: out_flow == RING -> atomic { tail++; sent++; wrote = true }
#ifdef MUTANT_DATA_BEFORE_OWED_BELL
     :: out_flow != RING ->
#else
     :: out_flow != RING && !owed ->
#endif
        atomic {
          if
          :: ROOM -> sent++; kernel!sent; kernel_sent++
          :: else
          fi
        }
     :: out_flow == AGAIN && owed -> skip
     fi;
     unlock(x_lock);
     if
     :: wrote && unrung ->
        lock(x_lock);
        if
        :: out_flow == RING ->
           unrung = false;                                   // (the word is loaded here, and noted as rung for if the bell was sent)
           send_bell(fits);
           if
           :: !fits -> unrung = true
           :: else
           fi
        :: else
        fi;
        unlock(x_lock)
     :: else
     fi
  :: break
  od;
  // A program may stop writing at any point, but not the library in the middle of its last bell.
  if
  :: owed -> atomic { ROOM -> kernel!BELL; owed = false }
  :: else
  fi
}

// X's reading thread: its bells for space share stream and count.
active proctype x_reader() LIVES {
  byte n;
  bool fits;
  do
  :: n < SPACE_BELLS ->
     n++;
#ifndef MUTANT_RING_UNLOCKED
     lock(x_lock);
#endif
     if
     :: out_flow == RING -> send_bell(fits)
     :: else
     fi
#ifndef MUTANT_RING_UNLOCKED
     ; unlock(x_lock)
#endif
  :: break
  od
}

#ifdef KILL
active proctype killer() { killed = true; eof = true }
#endif

// ---------------------------------------------------------------- the end Y

inline from_kernel(byte_) { kernel?byte_; assert(byte_ == next); next++; byte_ = 0 }
inline from_ring() { assert(kernel_total + head + 1 == next); head++; next++ }
inline take_bell(byte_) { kernel?byte_; assert(byte_ == BELL); taken++ }

// advance_incoming(). Under y_lock.
inline advance() {
  s = stage;
  atomic {
    if
#ifdef MUTANT_IGNORE_UNCOUNTED
    :: s != KERNEL && in_flow == KERNEL && kernel_total == received -> in_flow = RING; passed = true
#else
    :: s != KERNEL && in_flow == KERNEL && kernel_readers == 0 && kernel_total == received -> in_flow = RING; passed = true
#endif
    :: else
    fi
  };
  if
  :: s == AGAIN && in_flow == RING && head == demote_at ->
     do
     :: atomic { taken < bells_final && SOME -> take_bell(v) }
     :: taken >= bells_final -> in_flow = AGAIN; break
     :: taken < bells_final && eof && NONE -> in_flow = AGAIN; break
     :: taken < bells_final && NONE && !eof -> break  // on its way: later
     od
  :: else
  fi
}

active proctype y_reader() {
  byte s, v, q, target;
again:
  lock(y_lock);
  advance();
  if
  :: in_flow == KERNEL ->
     if
#ifdef MUTANT_READ_BESIDE_OLD_READER
     :: stage != KERNEL && kernel_readers > 0 ->
#else
     :: kernel_readers > 0 ->
#endif
        unlock(y_lock); goto slice     // they may hold bytes that are not counted, or take what we measure
     :: else
     fi;
#ifdef MUTANT_READ_UNMEASURED
     q = 0;
     s = stage;
     if :: s == KERNEL -> q = 3 :: else fi;
#else
     q = len(kernel);                                        // FIONREAD, then the stage: what was there before any fence is data
     s = stage;
#endif
     if
     :: s == KERNEL && q == 0 ->
        if
        :: eof && NONE ->
#ifndef MUTANT_END_WITHOUT_LOOK
           if
           :: stage != KERNEL -> unlock(y_lock); goto again  // it turned to the ring before it died
           :: else
           fi;
#endif
           unlock(y_lock); done = true; goto end
        :: else -> unlock(y_lock); goto sleep
        fi
     :: s != KERNEL ->
        atomic { q = kernel_total - received;
          if
          :: q > 0 -> do :: q > 0 && SOME -> from_kernel(v); received++; q-- :: q > 0 -> break :: q == 0 -> break od
          :: else
          fi;
          q = 0 };
        unlock(y_lock); goto again
     :: s == KERNEL && q > 0 ->
        atomic {
          do                                                 // one read: one byte or more
          :: q > 0 && SOME -> from_kernel(v); received++; q--;
             if :: skip :: break fi
          :: else -> break
          od;
          q = 0
        };
        unlock(y_lock); goto again
     fi
  :: in_flow == RING ->
     if
     :: head < tail ->
        atomic { do :: head < tail -> from_ring(); if :: skip :: break fi :: else -> break od };
        unlock(y_lock); goto again
     :: stage == AGAIN && head == demote_at && head == tail -> // its bell is on its way
        unlock(y_lock);
        (SOME || eof || taken >= bells_final);
        goto again
     :: else ->
        if
        :: eof && NONE ->
#ifndef MUTANT_END_WITHOUT_LOOK
           if
           :: head < tail || stage == AGAIN -> unlock(y_lock); goto again
           :: else
           fi;
#endif
           unlock(y_lock); done = true; goto end
        :: else -> unlock(y_lock); goto sleep
        fi
     fi
  :: in_flow == AGAIN ->
     if
     :: atomic { SOME -> from_kernel(v); if :: SOME -> from_kernel(v) :: skip fi };
        unlock(y_lock); goto again
     :: NONE && eof -> unlock(y_lock); done = true; goto end
     :: NONE && !eof -> unlock(y_lock);
        atomic { in_kernel = true; SOME || eof -> in_kernel = false };
        goto again
     fi
  fi;

sleep:
  lock(y_lock);
  advance();
  if
  :: in_flow == RING ->
     target = bells_rung;
     unrung = true;                                          // arm, barrier
     if
     :: head < tail || stage == AGAIN -> target = 0; unlock(y_lock); goto again
     :: else
     fi;
#ifdef MUTANT_DRAIN_WHAT_COMES
     atomic { do :: SOME -> take_bell(v) :: else -> break od };
#else
     atomic { do :: taken < target && SOME -> take_bell(v) :: else -> break od };
#endif
     target = 0;
     unlock(y_lock);
     if
     :: head < tail || stage == AGAIN -> goto again
     :: else
     fi
  :: in_flow == KERNEL && stage != KERNEL -> unlock(y_lock); goto again
  :: else -> unlock(y_lock)
  fi;
  atomic { in_kernel = true; SOME || eof -> in_kernel = false };
  goto again;

slice:                                                       // bounded sleeps, until there is something to see
  atomic { in_kernel = true; kernel_readers == 0 -> in_kernel = false };
  goto again;
end:
  skip
}

// An old reader: asleep in its own recv, which takes whatever is there; counts afterwards. What is past the up-fence it takes for bells.
active [OLD] proctype y_old_reader() {
  byte v, s, data, bells, most, mine;
  if
  :: atomic { SOME ->
       do
       :: SOME && most < 3 ->
          kernel?v; most++;
          if
          :: v == BELL -> bells++
          :: else -> assert(v == next); assert(bells == 0); next++; data++
          fi;
          v = 0
       :: most > 0 -> break
       od }
  :: eof && NONE
  fi;
  lock(y_lock);
  if
  :: stage == KERNEL -> mine = most
  :: else -> mine = (most < kernel_total - received -> most : kernel_total - received)
  fi;
  assert(mine == data);                                      // what goes to the program is the data, all of it, and no bell
  atomic { received = received + mine; taken = taken + (most - mine) };
  atomic { kernel_readers--; if :: kernel_readers == 0 -> old_readers = false :: else fi };
  if
  :: mine == 0 ->                                            // nothing but bells: on to the ring, as any reader
     advance();
     atomic { if :: in_flow == RING && head < tail -> from_ring() :: else fi }
  :: else
  fi;
  unlock(y_lock)
}

// Nobody can take a step: everything that was committed has arrived.
active proctype monitor() {
  timeout ->
  assert(done || in_kernel);
  assert(next == sent + 1)
}

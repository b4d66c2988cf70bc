/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * vfio-pci-hooks: control device, hook channel and session of one open.
 *
 * Three descriptors, each with less right than the one before:
 *
 *   /dev/vfio-pci-hooks   control: GET_FEATURES, DEFINE, UNDEFINE, ATTACH, GET_STATUS.
 *                         DEFINE, UNDEFINE and ATTACH need CAP_SYS_ADMIN in the initial user namespace.
 *   channel               from ATTACH: serves one device. WAIT_OPEN, NEXT_QUERY, GET_PARAMETERS. Closing it detaches.
 *   session               from WAIT_OPEN: serves one open of that device. Memory, requests, register and guest memory
 *                         access. Dead when the device is closed or the session is revoked; never alive again.
 *
 *   define ---> bind driver ---> attach ---> wait open ---> [ next, next, ... ] ---> ESHUTDOWN ---> wait open ...
 *
 * Structures open with argsz, the size the caller knows; a kernel that knows more fills or reads no more than that,
 * and refuses (E2BIG) set bytes that it does not know. Unknown flags are refused with EINVAL.
 */
#ifndef _UAPI_LINUX_VFIO_PCI_HOOKS_H
#define _UAPI_LINUX_VFIO_PCI_HOOKS_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define VFIO_PCI_HOOKS_IOC_TYPE		0xB5

#define VFIO_PCI_HOOKS_MAX_HANDLERS	8
#define VFIO_PCI_HOOKS_MAX_RANGES	32
#define VFIO_PCI_HOOKS_MAX_STEPS	64
#define VFIO_PCI_HOOKS_NAME_LEN		32	/* with the terminating NUL */
#define VFIO_PCI_HOOKS_SAVED		32	/* values that SAVE and RESTORE steps share */
#define VFIO_PCI_HOOKS_SLOTS		16
#define VFIO_PCI_HOOKS_MAX_SHADOW	65536
/* The stream buffer, in bytes; older modules have one slice of the same size, see GET_FEATURES. */
#define VFIO_PCI_HOOKS_STREAM_SLICE	1048576
#define VFIO_PCI_HOOKS_STREAM_SLICES	4
#define VFIO_PCI_HOOKS_STREAM_SIZE	(VFIO_PCI_HOOKS_STREAM_SLICES * VFIO_PCI_HOOKS_STREAM_SLICE)
#define VFIO_PCI_HOOKS_MAX_PARAMETERS	32
/* With the terminating NUL: */
#define VFIO_PCI_HOOKS_VALUE_LEN	64
#define VFIO_PCI_HOOKS_TEXT_LEN		256
#define VFIO_PCI_HOOKS_VERSION_LEN	4096

/* ------------------------------------------------------------------ control */

/* What the loaded module can do. Bits are never reused. */
#define VFIO_PCI_HOOKS_FEATURE_MIGRATION	(1ULL << 0)	/* protocol v2: STOP_COPY, P2P, PRE_COPY */
#define VFIO_PCI_HOOKS_FEATURE_IOVA_RW		(1ULL << 1)	/* guest memory by IOVA (type1 container) */
#define VFIO_PCI_HOOKS_FEATURE_IOCTL		(1ULL << 2)	/* ioctls and device features reach handlers */
#define VFIO_PCI_HOOKS_FEATURE_PARAMETERS	(1ULL << 3)	/* model, migration parameters, migration_version */
#define VFIO_PCI_HOOKS_FEATURE_FILL		(1ULL << 4)	/* FILL steps */
#define VFIO_PCI_HOOKS_FEATURE_TOUCHED		(1ULL << 5)	/* TOUCHED; sizes fall with PRE_COPY */
#define VFIO_PCI_HOOKS_FEATURE_WATCH		(1ULL << 6)	/* NEXT_WATCH */

struct vfio_pci_hooks_features {
	__u32 argsz;
	__u32 flags;			/* 0 */
	__u64 features;			/* out: VFIO_PCI_HOOKS_FEATURE_* */
	__u32 max_handlers;		/* out: limits of the module, at least the constants above */
	__u32 max_ranges;
	__u32 max_steps;
	__u32 max_shadow;
	__u32 stream_size;
	__u32 slots;
};
#define VFIO_PCI_HOOKS_GET_FEATURES	_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 0, struct vfio_pci_hooks_features)

struct vfio_pci_hooks_address {
	__u32 domain;
	__u8  bus;
	__u8  devfn;
	__u16 reserved;			/* 0 */
};

/* One position of the chain. The name "channel" stands for the worker; any other names an in-kernel handler. */
#define VFIO_PCI_HOOKS_CHANNEL_NAME	"channel"
struct vfio_pci_hooks_handler {
	char name[VFIO_PCI_HOOKS_NAME_LEN];
};

/* A range of a region whose accesses the worker wants. Region numbers are VFIO_PCI_*_REGION_INDEX. */
#define VFIO_PCI_HOOKS_OP_READ		(1U << 0)
#define VFIO_PCI_HOOKS_OP_WRITE		(1U << 1)
struct vfio_pci_hooks_range {
	__u32 region;			/* BAR 0 to 5, or config space */
	__u32 ops;			/* VFIO_PCI_HOOKS_OP_* */
	__u64 offset;			/* bytes */
	__u64 length;			/* bytes, not 0 */
};

/*
 * One step of a register program. Little-endian registers of a memory or I/O port BAR, naturally aligned.
 *
 *   WRITE    register = value
 *   MODIFY   register = (register & ~mask) | (value & mask); mask 0 writes back what was read
 *   SAVE     saved[slot] = register
 *   RESTORE  register = saved[slot]
 *   POLL     wait until (register & mask) == value, at most timeout_us; else the program fails with ETIMEDOUT
 *   DELAY    wait timeout_us
 *   FILL     the mask bytes from offset on = value, again and again, in stores of 4 or 8 bytes: for memory. A memory BAR without
 *            the MSI-X table; width 4, mask a multiple of 4; 0 of them: up to the end of the BAR
 *
 * One program fills at most as many bytes of a BAR as it has. Its timeouts add up to at most 1 s; each is at most 100 ms. Steps of a reset program must not wait.
 */
#define VFIO_PCI_HOOKS_STEP_WRITE	1
#define VFIO_PCI_HOOKS_STEP_MODIFY	2
#define VFIO_PCI_HOOKS_STEP_SAVE	3
#define VFIO_PCI_HOOKS_STEP_RESTORE	4
#define VFIO_PCI_HOOKS_STEP_POLL	5
#define VFIO_PCI_HOOKS_STEP_DELAY	6
#define VFIO_PCI_HOOKS_STEP_FILL	7
struct vfio_pci_hooks_step {
	__u8  op;
	__u8  bar;
	__u8  width;			/* 1, 2 or 4 bytes */
	__u8  slot;			/* SAVE, RESTORE: below VFIO_PCI_HOOKS_SAVED */
	__u32 offset;
	__u32 mask;
	__u32 value;
	__u32 timeout_us;
};

struct vfio_pci_hooks_program {
	__u32 nr_steps;
	__u32 reserved;			/* 0 */
	__u64 steps;			/* pointer to struct vfio_pci_hooks_step[nr_steps] */
};

/*
 * A migration parameter of the device. All texts end with a NUL and are printable ASCII. The name: a to z, 0 to 9 and _,
 * opening with a letter, and not "model". Values hold neither a blank nor '|'. allowed_values: items between '|'; an item
 * LOW-HIGH of two decimal numbers without leading zeros is a range of them, any other takes its own text alone. All three
 * values must be allowed.
 */
#define VFIO_PCI_HOOKS_PARAMETER_RUNTIME (1U << 0)	/* may change while the device is open */
struct vfio_pci_hooks_parameter {
	__u32 flags;			/* VFIO_PCI_HOOKS_PARAMETER_* */
	__u32 reserved;			/* 0 */
	char name[VFIO_PCI_HOOKS_NAME_LEN];
	char value[VFIO_PCI_HOOKS_VALUE_LEN];		/* when the driver binds */
	char init_value[VFIO_PCI_HOOKS_VALUE_LEN];
	char off_value[VFIO_PCI_HOOKS_VALUE_LEN];
	char allowed_values[VFIO_PCI_HOOKS_TEXT_LEN];
	char description[VFIO_PCI_HOOKS_TEXT_LEN];
};

/*
 * The definition of one function. Set before the driver binds it (EBUSY while bound), gone with the function: another
 * function that appears at the same address later does not inherit it. Replaces an earlier definition as a whole.
 */
#define VFIO_PCI_HOOKS_DEFINE_MIGRATION	(1U << 0)	/* the channel owns the device's migration */
#define VFIO_PCI_HOOKS_DEFINE_FAIL	(1U << 1)	/* accesses with no worker fail with EIO instead of passing */
#define VFIO_PCI_HOOKS_MEMORY_NONE	0
#define VFIO_PCI_HOOKS_MEMORY_READ	1
#define VFIO_PCI_HOOKS_MEMORY_WRITE	2		/* includes read */
struct vfio_pci_hooks_define {
	__u32 argsz;
	__u32 flags;			/* VFIO_PCI_HOOKS_DEFINE_* */
	struct vfio_pci_hooks_address address;
	__u16 vendor;			/* must be the function's, else ENODEV */
	__u16 device;
	__u32 guest_memory;		/* VFIO_PCI_HOOKS_MEMORY_* */
	__u32 access_limit_ms;		/* a trapped access waits at most so long for a worker; 1 to 10000 */
	__u32 state_limit_ms;		/* read() or write() of the data file waits at most so long for an answer; 1 to 600000 */
	__u32 shadow_size;		/* bytes of shadow memory, at most VFIO_PCI_HOOKS_MAX_SHADOW; 0: none */
	__u32 nr_handlers;
	__u32 nr_ranges;
	__u32 ioctls;			/* bit n: the worker wants ioctl VFIO_BASE + n; 7 to 16 without GET_REGION_INFO (8) */
	__u32 device_features;		/* bit n: the worker wants VFIO_DEVICE_FEATURE n, as far as vfio leaves it to drivers */
	__u32 reserved0;		/* 0 */
	__u64 handlers;			/* pointer to struct vfio_pci_hooks_handler[nr_handlers], first asked first */
	__u64 ranges;			/* pointer to struct vfio_pci_hooks_range[nr_ranges], of the channel */
	__u64 max_state;		/* upper bound of the whole stream in bytes, framing included; EFBIG beyond */
	struct vfio_pci_hooks_program stop;	/* run on the way out of RUNNING */
	struct vfio_pci_hooks_program start;	/* run on the way into RUNNING */
	struct vfio_pci_hooks_program reset;	/* run after each reset of the function: clears what the reset leaves */
	/* FEATURE_PARAMETERS; only with DEFINE_MIGRATION. A model makes the files that Documentation/ABI describes. */
	char model[VFIO_PCI_HOOKS_TEXT_LEN];	/* printable ASCII; empty: none, and then no parameters */
	__u32 nr_parameters;
	__u32 reserved;			/* 0 */
	__u64 parameters;		/* pointer to struct vfio_pci_hooks_parameter[nr_parameters] */
};
/* The number names the size of the first version, so that it stays when the structure grows. */
#define VFIO_PCI_HOOKS_DEFINE		_IOC(_IOC_WRITE, VFIO_PCI_HOOKS_IOC_TYPE, 1, 128)

struct vfio_pci_hooks_undefine {
	__u32 argsz;
	__u32 flags;			/* 0 */
	struct vfio_pci_hooks_address address;
};
#define VFIO_PCI_HOOKS_UNDEFINE		_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 2, struct vfio_pci_hooks_undefine)

/*
 * One attacher at a time (EBUSY). ENOENT without a definition or without a channel in it, ENXIO while the function is not
 * bound to this driver.
 */
struct vfio_pci_hooks_attach {
	__u32 argsz;
	__u32 flags;			/* 0 */
	struct vfio_pci_hooks_address address;
	__s32 fd;			/* out: the channel, close-on-exec */
	__u32 reserved;			/* 0 */
};
#define VFIO_PCI_HOOKS_ATTACH		_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 3, struct vfio_pci_hooks_attach)

#define VFIO_PCI_HOOKS_STATUS_BOUND	 (1U << 0)
#define VFIO_PCI_HOOKS_STATUS_OPEN	 (1U << 1)
#define VFIO_PCI_HOOKS_STATUS_ATTACHED	 (1U << 2)
#define VFIO_PCI_HOOKS_STATUS_SERVED	 (1U << 3)	/* a session is alive */
#define VFIO_PCI_HOOKS_STATUS_INCOMPLETE (1U << 4)	/* an access nobody saw: no migration until the guest resets */
struct vfio_pci_hooks_status {
	__u32 argsz;
	__u32 flags;			/* out: VFIO_PCI_HOOKS_STATUS_* */
	struct vfio_pci_hooks_address address;
	__u32 mig_state;		/* out: VFIO_DEVICE_STATE_* */
	__u32 reserved;
	__u64 accesses;			/* out: trapped accesses a worker answered, since bound */
	__u64 missed;			/* out: trapped accesses no worker answered */
	__u64 revoked;			/* out: sessions revoked for being late */
	__u64 resets;			/* out: resets since bound */
};
#define VFIO_PCI_HOOKS_GET_STATUS	_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 4, struct vfio_pci_hooks_status)

/* ------------------------------------------------------------------ channel */

/*
 * Waits until the device is open and not served, and answers with the session of that open. poll() reports POLLIN when
 * it would not wait. ENODEV: the function left the driver; POLLHUP.
 */
#define VFIO_PCI_HOOKS_WAIT_NONBLOCK	(1U << 0)	/* in: EAGAIN instead of waiting */
#define VFIO_PCI_HOOKS_SESSION_AGAIN	(1U << 0)	/* out: an earlier worker served this open; its shadow is there */
struct vfio_pci_hooks_wait_open {
	__u32 argsz;
	__u32 flags;			/* in: WAIT_*, out: SESSION_* */
	__s32 fd;			/* out: the session, close-on-exec */
	__u32 mig_state;		/* out: VFIO_DEVICE_STATE_* at that moment */
};
#define VFIO_PCI_HOOKS_WAIT_OPEN	_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 16, struct vfio_pci_hooks_wait_open)

/*
 * What somebody asks through the files of the device, open or not: no session takes part. Hands over the answer to a query
 * (or none) and waits for the next one. Any thread that has the channel may call; a process that closes a descriptor of it,
 * or ends, gives up the queries it was given, and who asked gets ENOTCONN.
 *
 * EINVAL: no such query waits (its time was over, or who asked is gone), or answer or text is wrong; nothing was answered.
 * ETIME: nothing came within timeout_ms. ENODEV: the function left the driver. As soon as an answer is taken, `answered` is
 * set to 0: the same call can be repeated.
 */
#define VFIO_PCI_HOOKS_QUERY_READ	1	/* the device's migration_version; answered by text */
#define VFIO_PCI_HOOKS_QUERY_WRITE	2	/* can a source of the migration_version in text migrate to this device? */
struct vfio_pci_hooks_next_query {
	__u32 argsz;
	__u32 flags;			/* 0 */
	__u64 answered;			/* in: id of the query that is answered; 0: none */
	__s32 answer;			/* in: 0, or a negative errno (-511 to -1): text then holds the reason */
	__s32 timeout_ms;		/* in: below 0 waits for ever */
	__u32 length;			/* bytes at text, below VERSION_LEN. in: of the answer, out: of the query */
	__u32 what;			/* out: VFIO_PCI_HOOKS_QUERY_* */
	__u64 text;			/* pointer to VERSION_LEN bytes; answers of READ are printable ASCII */
	__u64 id;			/* out: never 0 */
};
#define VFIO_PCI_HOOKS_NEXT_QUERY	_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 17, struct vfio_pci_hooks_next_query)

/*
 * All values at one moment, in the order of the definition. GET: channel and session; fills as many as there is room for.
 * SET: session, and only in RESUMING, once for each stream (EBUSY), for the device takes over the source's values. All or
 * none are set; EINVAL: one is not allowed, or nr is not the definition's. Each one that changes is told by a uevent.
 */
struct vfio_pci_hooks_parameters {
	__u32 argsz;
	__u32 flags;			/* 0 */
	__u32 nr;			/* in: GET: room, SET: the definition's number. out: GET: the definition's number */
	__u32 reserved;			/* 0 */
	__u64 values;			/* pointer to char[nr][VFIO_PCI_HOOKS_VALUE_LEN], each with a NUL */
};
#define VFIO_PCI_HOOKS_GET_PARAMETERS	_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 18, struct vfio_pci_hooks_parameters)
#define VFIO_PCI_HOOKS_SET_PARAMETERS	_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 38, struct vfio_pci_hooks_parameters)

/* ------------------------------------------------------------------ session */

/*
 * mmap() offsets. A BAR is mapped at VFIO's own offset (index << 40): the mapping works while the device is open, its
 * memory enabled and not in reset or low power; else SIGBUS. All of them end with the session.
 */
#define VFIO_PCI_HOOKS_MMAP_BAR(index)	((__u64)(index) << 40)
#define VFIO_PCI_HOOKS_MMAP_SLOTS	((__u64)64 << 40)	/* VFIO_PCI_HOOKS_SLOTS * sizeof(slot) */
#define VFIO_PCI_HOOKS_MMAP_SHADOW	((__u64)65 << 40)	/* shadow_size, rounded up to pages */
#define VFIO_PCI_HOOKS_MMAP_STREAM	((__u64)66 << 40)	/* STREAM_SIZE, or less: slices that nobody maps are not used */

/* What a request asks. */
#define VFIO_PCI_HOOKS_REQ_READ		1	/* region index, offset, length <= 8, naturally aligned */
#define VFIO_PCI_HOOKS_REQ_WRITE	2	/* the same, bytes in data */
#define VFIO_PCI_HOOKS_REQ_IOCTL	3	/* index = n of VFIO_BASE + n, data = the argument, length bytes of it */
#define VFIO_PCI_HOOKS_REQ_FEATURE	4	/* index = flags of VFIO_DEVICE_FEATURE, data = payload */
/*
 * SAVE and LOAD are about the slice of the stream buffer that begins at offset. At most one of them is unanswered, and it
 * need not be waited for: SAVE comes before the VMM reads, as long as slices are free, and a slow answer to it makes a
 * worker late only from when the VMM waits. Older modules say 0 for the offset and for the length of SAVE: the whole buffer.
 *
 * The answer to LOAD may promise bytes ahead: so many more of the stream certainly follow, and the worker neither refuses
 * one of them nor ends the stream before (the stream then fails with EINVAL). The VMM may write these without waiting for
 * the worker. No promise (0) has each write() wait for the worker's answer to all of it, as older modules always do.
 */
#define VFIO_PCI_HOOKS_REQ_SAVE		5	/* fill at most length bytes; index = VFIO_PCI_HOOKS_PHASE_* */
#define VFIO_PCI_HOOKS_REQ_LOAD		6	/* length bytes of the stream are there */

#define VFIO_PCI_HOOKS_PHASE_PRE_COPY	0
#define VFIO_PCI_HOOKS_PHASE_STOP_COPY	1

/* Request flags. */
#define VFIO_PCI_HOOKS_REQ_BEGIN	(1U << 0)	/* SAVE, LOAD: first request of a new stream */

/* Answers. A negative errno (-511 to -1) fails the operation. */
#define VFIO_PCI_HOOKS_HANDLED		0
#define VFIO_PCI_HOOKS_PASS		1
#define VFIO_PCI_HOOKS_RUN_REST		2	/* IOCTL, FEATURE: the caller's thread runs the rest, then asks again with AFTER */

#define VFIO_PCI_HOOKS_REQ_AFTER	(1U << 1)	/* IOCTL, FEATURE: the rest has run, answer holds its result */

/*
 * Answer flags. SAVE without END and without a byte: nothing now (PRE_COPY only). What follows after END of PRE_COPY comes
 * with the phase STOP_COPY.
 */
#define VFIO_PCI_HOOKS_ANSWER_END	(1U << 0)	/* SAVE: nothing follows in this phase. LOAD: complete and applied */

/*
 * A slot: one request and its answer. The kernel writes the first half when it posts the request, and 0 to dirty_bytes; it
 * reads each field of the second half exactly once, when the worker hands the answer over by NEXT, or by the word watch.
 */
struct vfio_pci_hooks_slot {
	/* kernel to worker */
	__u32 seq;
	__u32 op;			/* VFIO_PCI_HOOKS_REQ_* */
	__u32 flags;
	__u32 index;
	__u32 length;
	__u32 watch;			/* of slot 0: VFIO_PCI_HOOKS_WATCH_*, see NEXT_WATCH; else 0 */
	__u64 offset;
	/* worker to kernel */
	__u32 answer_seq;		/* seq of the request this answers */
	__s32 answer;
	__u32 answer_length;		/* READ: length of the request. SAVE: bytes in the slice. IOCTL: bytes to copy out */
	__u32 answer_flags;		/* VFIO_PCI_HOOKS_ANSWER_* */
	__u64 initial_bytes;		/* SAVE: what PRECOPY_INFO says from now on */
	__u64 dirty_bytes;		/* the same. LOAD: bytes ahead, see REQ_LOAD */
	/* both */
	__u8  data[4096 - 64];
};

/* Events are told, never waited for. */
#define VFIO_PCI_HOOKS_EVENT_RESET	1	/* the shadow has been zeroed */
#define VFIO_PCI_HOOKS_EVENT_STATE	2	/* the device went from state `from` to state `to` */
#define VFIO_PCI_HOOKS_EVENT_PARAMETERS	3	/* somebody else changed a value: GET_PARAMETERS */

/*
 * Hands over the answer in a slot (or none) and waits for what comes next. Events come before requests.
 * ESHUTDOWN: the device was closed. ECANCELED: the session was revoked. EINVAL: no such request is waiting in this
 * session (it was cancelled, or its time was over), or seq or a length is wrong; nothing was answered. ETIME: nothing came
 * within timeout_ms. As soon as an answer is taken, `answered` is set to NO_SLOT: the same call can be repeated.
 *
 * A session that ends takes its mappings along: touching them is a SIGBUS. A state change right after WAIT_OPEN may be told
 * by both its mig_state and an event.
 */
#define VFIO_PCI_HOOKS_NO_SLOT		(-1)
#define VFIO_PCI_HOOKS_NEXT_REQUEST	1
#define VFIO_PCI_HOOKS_NEXT_EVENT	2
#define VFIO_PCI_HOOKS_NEXT_WATCHING	3
/*
 * FEATURE_WATCH: a worker may stay awake. NEXT with NEXT_WATCH does not wait: where nothing came up it says NEXT_WATCHING,
 * and from then on, until the next NEXT or poll() of whatever thread, accesses and calls of the VMM come by the word `watch`
 * of slot 0:
 *
 *   IDLE      nothing yet
 *   REQUEST   a request is in slot 0. The worker says TAKEN before it looks at it
 *   TAKEN     the worker says ANSWERED when its answer is in the slot
 *   ANSWERED  the kernel takes it, and says IDLE for the next one, or CALL
 *   CALL      call NEXT: it tells what there is, also a REQUEST that was not TAKEN. Also what memory that is gone may read as
 *
 * The worker reads the word with acquire semantics and changes it by compare-and-exchange with release semantics. Where that
 * finds CALL in place of TAKEN, the answer is handed over by NEXT, as ever. It may call NEXT whenever it no longer wants to
 * watch: an answer that stands there is taken (EINVAL where it is wrong; the request is then told again).
 */
#define VFIO_PCI_HOOKS_NEXT_WATCH	(1U << 0)
#define VFIO_PCI_HOOKS_WATCH_CALL	0
#define VFIO_PCI_HOOKS_WATCH_IDLE	1
#define VFIO_PCI_HOOKS_WATCH_REQUEST	2
#define VFIO_PCI_HOOKS_WATCH_TAKEN	3
#define VFIO_PCI_HOOKS_WATCH_ANSWERED	4
struct vfio_pci_hooks_next {
	__u32 argsz;
	__u32 flags;			/* NEXT_WATCH */
	__s32 answered;			/* in: slot, or NO_SLOT */
	__s32 timeout_ms;		/* in: below 0 waits for ever; not looked at with NEXT_WATCH */
	__u32 what;			/* out: NEXT_REQUEST, NEXT_EVENT or NEXT_WATCHING */
	__s32 slot;			/* out: NEXT_REQUEST */
	__u32 event;			/* out: NEXT_EVENT: EVENT_* */
	__u32 from;			/* out: EVENT_STATE: VFIO_DEVICE_STATE_* */
	__u32 to;
	__u32 lost;			/* out: events dropped before this one because the worker did not fetch them */
};
#define VFIO_PCI_HOOKS_NEXT		_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 32, struct vfio_pci_hooks_next)

/*
 * A region access behind the channel: handlers after it, then vfio-pci's default. At most 4096 bytes; ESHUTDOWN and
 * ECANCELED as above. ESTALE: the device was reset, and NEXT has not told it yet; nothing was written. IOVA_RW reads or
 * writes guest memory, at most 64 KiB, EPERM unless the definition grants it; ETIMEDOUT: a page of it did not come within
 * access_limit_ms.
 */
#define VFIO_PCI_HOOKS_RW_WRITE		(1U << 0)
struct vfio_pci_hooks_rw {
	__u32 argsz;
	__u32 flags;			/* RW_WRITE */
	__u32 region;			/* REGION_RW only */
	__u32 length;			/* bytes */
	__u64 offset;			/* in the region, or the IOVA */
	__u64 data;			/* pointer */
};
#define VFIO_PCI_HOOKS_REGION_RW	_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 33, struct vfio_pci_hooks_rw)
#define VFIO_PCI_HOOKS_IOVA_RW		_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 34, struct vfio_pci_hooks_rw)

/* Replaces the start program for the next way into RUNNING, once; a reset drops it. Only in RESUMING (else EBUSY). */
struct vfio_pci_hooks_start_once {
	__u32 argsz;
	__u32 flags;			/* 0 */
	struct vfio_pci_hooks_program program;
};
#define VFIO_PCI_HOOKS_START_ONCE	_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 35, struct vfio_pci_hooks_start_once)

/* The values that SAVE steps of the stop program kept: what a stopped device had in its enable registers. */
struct vfio_pci_hooks_saved {
	__u32 argsz;
	__u32 flags;			/* 0 */
	__u32 value[VFIO_PCI_HOOKS_SAVED];	/* out */
};
#define VFIO_PCI_HOOKS_GET_SAVED	_IOWR(VFIO_PCI_HOOKS_IOC_TYPE, 36, struct vfio_pci_hooks_saved)

/*
 * What MIG_DATA_SIZE and PRECOPY_INFO answer before the first SAVE of a stream. stop_copy is all that would come if the
 * device stopped then, initial bytes included, and at most max_state. Afterwards the bytes that a SAVE answer says are
 * left take the place of the initial ones in both, and the pages that were touched since it was given count as dirty.
 */
struct vfio_pci_hooks_sizes {
	__u32 argsz;
	__u32 flags;			/* 0 */
	__u64 initial_bytes;
	__u64 stop_copy_bytes;
};
#define VFIO_PCI_HOOKS_SET_SIZES	_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 37, struct vfio_pci_hooks_sizes)

/*
 * Which pages of a memory BAR the VMM may have touched, by mappings, read() or write(), since the call before; for the first
 * of a session and the first after a reset, all. The pages' mappings are taken away for it, and fault back in: whoever reads
 * a page after the call sees every access the call has told. What the worker itself touches does not count, nor what
 * devices do. EOPNOTSUPP where the channel does not own migration, and for a BAR above 64 GiB.
 */
struct vfio_pci_hooks_touched {
	__u32 argsz;
	__u32 flags;			/* 0 */
	__u32 region;			/* BAR 0 to 5 */
	__u32 reserved;			/* 0 */
	__u64 offset;			/* in the BAR, a multiple of 4096 */
	__u64 pages;			/* of 4096 bytes each, not 0 */
	__u64 bitmap;			/* pointer to __u64[(pages + 63) / 64]: bit n % 64 of word n / 64 for page n */
};
#define VFIO_PCI_HOOKS_TOUCHED		_IOW(VFIO_PCI_HOOKS_IOC_TYPE, 39, struct vfio_pci_hooks_touched)

#endif /* _UAPI_LINUX_VFIO_PCI_HOOKS_H */

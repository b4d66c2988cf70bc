/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Private to vfio-pci-hooks.
 *
 * Locks, outer to inner:
 *
 *	device_lock -> vph_functions_lock
 *	dev_set->lock (of vfio)		open and close of the device
 *	  vph_data_file.lock		one reader or writer of a data file at a time; held across
 *					copies to and from the VMM and while waiting for the worker
 *	    mmap_lock (of mm)
 *	      vph_session.map_lock	read: whatever the worker does to the device, and faults of
 *					its mappings. write: the moment the session dies
 *	        vph_migration.state_mutex	state, data files, programs
 *	        vph_touched.lock	read: a fault of the VMM's BAR mappings and its mark.
 *					write: the worker takes the marks
 *	          core.memory_lock (of vfio-pci-core)
 *	            vph_device.open_lock	a reset against open and close; never held across
 *					waits
 *	            vph_migration.reset_lock	deferred reset
 *	            vph_channel.lock	session, requests, events, shadow, queries, values of
 *					parameters, and which slices of a stream are full. Never
 *					held across user copies or waits, so that reset_done may
 *					take it
 *
 *	device_lock -> files in sysfs (kernfs) -> vph_channel.lock
 *
 *	vph_device.log_lock -> locks of the logger -> mmap_lock, core.memory_lock, locks of the
 *		IOMMU container: neither opens, resets nor changes of state take the first two
 *
 * vph_functions_lock guards the table of functions; inside it only vph_channel.lock.
 * Nobody waits for a worker with any of them held but vph_data_file.lock, which
 * neither reset nor close nor state changes take. Whoever reads or writes a file in
 * sysfs holds up its removal: vph_sysfs_remove() ends the queries first, and nothing
 * such a file does takes device_lock.
 */
#ifndef VFIO_PCI_HOOKS_PRIV_H
#define VFIO_PCI_HOOKS_PRIV_H

#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>
#include <linux/vfio_pci_hooks.h>
#include <linux/wait.h>

#define VPH_DRIVER_NAME		"vfio-pci-hooks"
#define VPH_NR_REGIONS		(VFIO_PCI_CONFIG_REGION_INDEX + 1)
#define VPH_CALL_SIZE		sizeof_field(struct vfio_pci_hooks_slot, data)
#define VPH_MAX_EVENTS		64
#define VPH_MAX_RW		4096
#define VPH_MAX_IOVA_RW		SZ_64K
/* Errnos that only the kernel itself knows (ERESTARTSYS and up) are no answers. */
#define VPH_MAX_ANSWER_ERRNO	511

struct vph_device;
struct vph_session;
struct vph_data_file;

/* ------------------------------------------------ definition.c, handler.c */

struct vph_program {
	unsigned int nr;
	struct vfio_pci_hooks_step steps[] __counted_by(nr);
};

struct vph_handler {
	struct list_head node;
	struct vfio_pci_hooks_ops ops;	/* with members unknown to the handler NULL */
};

struct vph_definition {
	struct kref kref;
	struct pci_dev *pdev;		/* referenced */
	u32 flags;
	u32 guest_memory;
	u32 access_limit_ms;
	u32 state_limit_ms;
	u32 shadow_size;
	u32 ioctls;
	u32 device_features;
	u64 max_state;
	unsigned int nr_handlers;
	/* Their modules are referenced. */
	const struct vph_handler *handlers[VFIO_PCI_HOOKS_MAX_HANDLERS];
	int channel;			/* index in handlers, or -1 */
	int logger;			/* the same */
	unsigned int nr_ranges;
	struct vfio_pci_hooks_range ranges[VFIO_PCI_HOOKS_MAX_RANGES];
	struct vph_program *stop;
	struct vph_program *start;
	struct vph_program *reset;
	char model[VFIO_PCI_HOOKS_TEXT_LEN];	/* empty: no files in sysfs */
	unsigned int nr_parameters;
	struct vfio_pci_hooks_parameter *parameters;
};

struct vph_definition *vph_definition_create(struct pci_dev *pdev,
					     const struct vfio_pci_hooks_define *define);
void vph_definition_put(struct vph_definition *def);
int vph_definition_fits(const struct vph_definition *def);
int vph_range_check(struct pci_dev *pdev, const struct vfio_pci_hooks_range *range);

const struct vph_handler *vph_handler_get(const char *name);
void vph_handler_put(const struct vph_handler *handler);

/* ------------------------------------------------------------- control.c */

struct vph_definition *vph_bind(struct pci_dev *pdev);
void vph_bound(struct vph_device *hdev);
void vph_unbound(struct vph_device *hdev);
void vph_unbind(struct pci_dev *pdev);
int __init vph_control_init(void);
void vph_control_exit(void);

/* --------------------------------------------------------------- device */

struct vfio_pci_hooks_link {
	struct vph_device *hdev;
	const struct vfio_pci_hooks_ops *ops;
	unsigned int index;
	void *data;
};

/* Bytes of a region that the same handlers want; bit n stands for links[n]. */
struct vph_segment {
	u64 start;
	u64 end;
	u8 readers;
	u8 writers;
};

struct vph_segments {
	unsigned int nr;
	struct vph_segment *segment;
};

struct vph_migration {
	struct mutex state_mutex;	/* all below but reset_lock and deferred_reset */
	spinlock_t reset_lock;
	bool deferred_reset;
	enum vfio_device_mig_state state;	/* may be read without the lock for a hint */
	struct vph_data_file *saving;
	struct vph_data_file *loading;
	struct vph_program *start_once;
	bool values_taken;		/* by SET_PARAMETERS of this stream */
	bool asleep;			/* stopped where programs could not run, in D3 */
	u32 saved[VFIO_PCI_HOOKS_SAVED];
};

struct vph_device {
	struct vfio_pci_core_device core;
	struct vph_definition *def;	/* NULL: behaves as vfio-pci does */
	struct vph_channel *channel;	/* NULL: no worker in the chain */
	unsigned int nr_links;
	struct vfio_pci_hooks_link links[VFIO_PCI_HOOKS_MAX_HANDLERS];
	struct vph_segments segments[VPH_NR_REGIONS];
	bool bars_trapped;
	u8 ioctls[32];			/* per ioctl above VFIO_BASE: links that want it */
	u8 device_features[32];
	struct vph_migration mig;
	struct mutex open_lock;		/* open; reset program and reset callbacks */
	bool open;			/* may be read without the lock for a hint */
	atomic64_t resets;
	atomic_t logging;
	struct mutex log_lock;		/* START and STOP of the logger */
	struct iommufd_access *access;	/* dev_set->lock; constant while the device is open */
	bool access_attached;		/* dev_set->lock */
	/* Constant from probe to remove. */
	struct kobject *migration_kobj;
	struct kobject *parameter_kobj[VFIO_PCI_HOOKS_MAX_PARAMETERS];
};

static inline struct vph_device *vph_device(struct vfio_device *core_vdev)
{
	return container_of(core_vdev, struct vph_device, core.vdev);
}

static inline struct vph_device *vph_drvdata(struct device *dev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(dev);

	return container_of(core, struct vph_device, core);
}

static inline bool vph_owns_migration(struct vph_device *hdev)
{
	return hdev->def && (hdev->def->flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION);
}

/* --------------------------------------------------------------- chain.c */

/* One trapped access on its way through the chain. */
struct vph_walk {
	struct vfio_pci_hooks_access access;
	struct vph_device *hdev;
	u8 links;			/* that want it */
	bool force;			/* the worker's own, see vph_bar_unit() */
	bool in_user;			/* the default has put a config read into user */
	char __user *user;		/* config space: what the default reads or writes */
	u8 original[8];			/* config write: what user holds */
};

int vph_chain_init(struct vph_device *hdev);
void vph_chain_exit(struct vph_device *hdev);
int vph_chain_open(struct vph_device *hdev);
void vph_chain_close(struct vph_device *hdev);
void vph_chain_reset(struct vph_device *hdev);
void vph_chain_state(struct vph_device *hdev, u32 from, u32 to);
const struct vph_segment *vph_segment_at(struct vph_device *hdev, unsigned int region, u64 offset,
					 u64 length);
bool vph_is_trapped_behind(struct vph_device *hdev, unsigned int link, unsigned int region,
			   u64 offset, u64 length);
unsigned int vph_unit_length(u64 offset, u64 length, unsigned int most);
int vph_walk(struct vph_walk *walk, unsigned int from);

/* -------------------------------------------------------------- region.c */

ssize_t vph_read(struct vfio_device *core_vdev, char __user *buf, size_t count, loff_t *ppos);
ssize_t vph_write(struct vfio_device *core_vdev, const char __user *buf, size_t count,
		  loff_t *ppos);
int vph_mmap(struct vfio_device *core_vdev, struct vm_area_struct *vma);
bool vph_region_info_ours(struct vph_device *hdev, unsigned int index);
int vph_region_info(struct vph_device *hdev, struct vfio_region_info *info,
		    struct vfio_info_cap *caps);
int vph_default_unit(struct vph_walk *walk);
int vph_user_unit(struct vph_device *hdev, const struct vph_segment *segment, unsigned int from,
		  unsigned int region, u64 offset, unsigned int length, char __user *buf,
		  bool write);
int vph_bar_unit(struct vph_device *hdev, unsigned int bar, u64 offset, unsigned int length,
		 void *data, bool write, bool force);
void vph_fill_words(void __iomem *io, u32 length, u32 value);
int vph_bar_fill(struct vph_device *hdev, unsigned int bar, u64 offset, u32 length, u32 value);

/* ---------------------------------------------------------------- call.c */

long vph_ioctl(struct vfio_device *core_vdev, unsigned int cmd, unsigned long arg);
int vph_device_feature(struct vfio_device *core_vdev, u32 flags, void __user *arg, size_t argsz);
int vph_get_region_info_caps(struct vfio_device *core_vdev, struct vfio_region_info *info,
			     struct vfio_info_cap *caps);

/* An ioctl or device feature on its way through the chain. */
struct vph_call {
	struct vfio_pci_hooks_call call;
	struct vph_device *hdev;
	bool feature;
	unsigned int cmd;		/* the ioctl */
	void __user *user;		/* its argument */
	size_t size;			/* bytes at user */
	u8 links;
};

int vph_call_rest(struct vph_call *call, unsigned int from);
int vph_call_refetch(struct vph_call *call);

/* ------------------------------------------------------------- program.c */

struct vph_program *vph_program_copy(struct pci_dev *pdev,
				     const struct vfio_pci_hooks_program *user, bool may_wait);
int vph_program_check(struct pci_dev *pdev, const struct vph_program *program, bool may_wait);
int vph_program_run(struct vph_device *hdev, const char *what, const struct vph_program *program);
void vph_program_run_reset(struct vph_device *hdev);

/* Bytes from its offset that a step reaches. */
static inline u32 vph_step_length(const struct vfio_pci_hooks_step *step)
{
	return step->op == VFIO_PCI_HOOKS_STEP_FILL ? step->mask : step->width;
}

/* ------------------------------------------------- vfio_pci_hooks_main.c */

void vph_reset_done(struct vph_device *hdev);

/* argsz first, as everywhere in the uAPI: what the caller does not know is 0. */
int vph_copy_in(void *to, size_t size, void __user *from);
int vph_copy_out(void __user *to, const void *from, size_t size, u32 argsz);

/* ------------------------------------------------------------- touched.c */

struct vph_touched {
	struct rw_semaphore lock;	/* read: marks. write: takes them */
	struct vph_touched_bar *bar[PCI_STD_NUM_BARS];	/* NULL: not tracked */
	const struct vm_operations_struct *core_vm_ops;
	u64 nr_asked;			/* pages that a worker has asked about */
	/* Without the lock: */
	bool all;			/* everything counts as touched */
	atomic64_t count;		/* pages asked about and touched since */
	atomic64_t taken;		/* of these, taken since the worker said what is left */
};

void vph_touched_mark(struct vph_device *hdev, u64 pos, u64 length);
void vph_touched_mmap(struct vph_device *hdev, struct vm_area_struct *vma);
long vph_touched_user(struct vph_session *session, void __user *arg);
u64 vph_touched_bytes(struct vph_channel *ch);
void vph_touched_told(struct vph_channel *ch);
void vph_touched_all(struct vph_channel *ch);
void vph_touched_init(struct vph_channel *ch);
void vph_touched_end(struct vph_channel *ch);

/* ------------------------------------------------------------- channel.c */

/* What a device and its worker have in common; outlives the driver's binding. */
struct vph_channel {
	struct kref kref;
	struct vph_definition *def;	/* referenced */
	wait_queue_head_t vmm_wait;	/* threads of the VMM */
	wait_queue_head_t worker_wait;	/* WAIT_OPEN, NEXT, poll */

	struct mutex lock;		/* all below */
	bool attached;
	bool gone;			/* the function left the driver */
	struct vph_device *hdev;	/* while the device is open */
	unsigned long epoch;		/* counts opens, closes and resets */
	unsigned long generation;	/* counts sessions that came and went */
	unsigned long activity;		/* counts what a waiting worker should look at */
	struct vph_session *session;	/* alive */
	unsigned int revoking;		/* sessions not yet zapped */
	unsigned long lost_at;		/* jiffies when there was no session any more */
	bool served;			/* this open had a session */
	bool incomplete;		/* an access nobody saw */
	struct list_head pending;	/* requests that no session has yet */
	u32 seq;
	void *shadow;			/* committed; def->shadow_size */
	struct vph_touched touched;	/* has a lock of its own */
	u64 initial_bytes;		/* of SET_SIZES */
	u64 stop_copy_bytes;
	u64 accesses;
	u64 missed;
	u64 revoked;
	char (*values)[VFIO_PCI_HOOKS_VALUE_LEN];	/* of def->parameters */
	struct list_head queries;	/* that wait for an answer */
	wait_queue_head_t query_wait;	/* NEXT_QUERY */
	unsigned long query_activity;	/* counts what it should look at */
	u64 query_id;
	fl_owner_t query_server;	/* last one in NEXT_QUERY, if still there */
	bool queries_over;		/* the files in sysfs go */
};

extern const struct vph_handler vph_channel_handler;

struct vph_channel *vph_channel_create(struct vph_definition *def);
void vph_channel_get(struct vph_channel *ch);
void vph_channel_put(struct vph_channel *ch);
void vph_channel_wake_worker_locked(struct vph_channel *ch);
int vph_channel_attach(struct vph_channel *ch, int *fd, struct file **filep);
void vph_channel_open(struct vph_channel *ch, struct vph_device *hdev);
void vph_channel_close(struct vph_channel *ch);
void vph_channel_gone(struct vph_channel *ch);
void vph_channel_reset(struct vph_channel *ch);
void vph_channel_state(struct vph_channel *ch, u32 from, u32 to);
bool vph_channel_incomplete(struct vph_channel *ch);

/* ----------------------------------------------------------- parameter.c */

int vph_define_parameters(struct vph_definition *def, const struct vfio_pci_hooks_define *d);
bool vph_is_printable(const char *text, size_t length);
int vph_parameters_init(struct vph_channel *ch);
void vph_parameter_read(struct vph_channel *ch, unsigned int index,
			char value[VFIO_PCI_HOOKS_VALUE_LEN]);
int vph_parameter_write(struct vph_channel *ch, unsigned int index, const char *text,
			size_t length);
int vph_parameters_set(struct vph_channel *ch, char (*values)[VFIO_PCI_HOOKS_VALUE_LEN]);
long vph_parameters_get_user(struct vph_channel *ch, void __user *arg);
long vph_parameters_set_user(struct vph_session *session, void __user *arg);

/* --------------------------------------------------------------- query.c */

/* Lives with the thread that waits for it; vph_channel.lock guards it. */
struct vph_query {
	struct list_head node;
	struct completion done;
	u64 id;
	u32 what;
	fl_owner_t owner;		/* who was given it */
	bool open;			/* in vph_channel.queries */
	int error;			/* what ended it without an answer */
	s32 answer;
	u32 length;
	char text[VFIO_PCI_HOOKS_VERSION_LEN];	/* ends with a NUL */
};

int vph_query_ask(struct vph_channel *ch, struct vph_query *query);
void vph_query_wake_locked(struct vph_channel *ch);
long vph_query_next(struct vph_channel *ch, void __user *arg);
void vph_queries_give_up(struct vph_channel *ch, fl_owner_t owner);
void vph_queries_end_locked(struct vph_channel *ch, int error);
void vph_queries_close(struct vph_channel *ch);

/* --------------------------------------------------------------- sysfs.c */

int vph_sysfs_add(struct vph_device *hdev);
void vph_sysfs_remove(struct vph_device *hdev);

/* ------------------------------------------------------------- request.c */

enum vph_request_state {
	VPH_REQUEST_PENDING,		/* in vph_channel.pending */
	VPH_REQUEST_GIVEN,		/* in a slot of the session */
	VPH_REQUEST_DONE,		/* nobody but the poster knows it any more */
};

/*
 * Lives with the thread that waits for it, or with the data file that is its owner:
 * the device holds a file until vph_data_file_end(), which cancels. vph_channel.lock
 * guards it; a thread's own is the thread's again when it is DONE.
 */
struct vph_request {
	u32 op;
	u32 flags;
	u32 index;
	u32 length;			/* of data, and of the slot; SAVE: room */
	u64 offset;
	void *data;			/* to the worker and back; NULL: none */
	u32 capacity;			/* bytes at data that an answer may fill */
	struct vph_session *session;	/* the only one that may answer; NULL: any */
	const struct vph_data_file *owner;	/* SAVE, LOAD */
	/* When it has ended, under vph_channel.lock; may post it again if it was answered. */
	void (*done)(struct vph_channel *ch, struct vph_request *request);

	s32 answer;
	u32 answer_length;
	u32 answer_flags;
	u64 initial_bytes;
	u64 dirty_bytes;

	enum vph_request_state state;
	u32 ends;			/* how often it has ended */
	int error;
	u32 seq;
	unsigned long epoch;
	struct list_head node;
};

struct vph_slot {
	struct vph_request *request;
	u32 seq;
	bool untold;			/* slot 0: given by the word watch; NEXT has not told it */
};

int vph_request_post_locked(struct vph_channel *ch, struct vph_request *request);
int vph_request_await(struct vph_channel *ch, struct vph_request *request, u32 ends,
		      unsigned long since, u32 limit_ms);
int vph_request_wait(struct vph_channel *ch, struct vph_request *request, u32 limit_ms);
struct vph_session *vph_session_wait(struct vph_channel *ch, unsigned long epoch,
				     const int *ended, bool may_wait);
void vph_requests_cancel(struct vph_channel *ch, const void *owner, int error);
void vph_requests_cancel_locked(struct vph_channel *ch, const void *owner, int error);
void vph_requests_cancel_stream_locked(struct vph_channel *ch, int error);
void vph_requests_return_locked(struct vph_channel *ch, struct vph_session *session);
int vph_request_answer(struct vph_session *session, unsigned int slot);
int vph_request_answer_locked(struct vph_session *session, unsigned int slot);
void vph_request_put_locked(struct vph_session *session, unsigned int slot,
			    struct vph_request *request);
bool vph_request_give_locked(struct vph_session *session, int *slot);
bool vph_request_waiting_locked(struct vph_session *session);

/* ------------------------------------------ session.c, session_mmap.c, access.c */

struct vph_event {
	u32 event;
	u32 from;
	u32 to;
	u32 lost;
};

struct vph_session {
	struct kref kref;
	struct vph_channel *channel;	/* referenced */
	/* Its vfio_device is referenced; to be used only while alive. */
	struct vph_device *hdev;

	struct rw_semaphore map_lock;
	bool dead;			/* written under map_lock; once */
	atomic_t iova_users;		/* accesses to guest memory; more only while not dead */
	const struct vm_operations_struct *core_vm_ops;

	/* Shared with the worker; freed with the session only. */
	struct vfio_pci_hooks_slot *slots;
	void *shadow;
	void *stream;
	u32 stream_mapped;		/* bytes of stream that the worker mapped, once at least */

	/* vph_channel.lock */
	int over;			/* errno once the channel has left it */
	unsigned long since;		/* jiffies when it began */
	struct vph_slot slot[VFIO_PCI_HOOKS_SLOTS];
	struct vph_event events[VPH_MAX_EVENTS];
	unsigned int first_event;
	unsigned int nr_events;
	u32 lost_events;
	bool reset_untold;		/* an EVENT_RESET waits; may be read without the lock */
	bool watched;			/* the worker looks at slot 0; no event waits */
};

struct file *vph_session_create(struct vph_channel *ch, u32 *flags, u32 *mig_state);
void vph_session_get(struct vph_session *session);
void vph_session_put(struct vph_session *session);
struct vph_session *vph_session_detach_locked(struct vph_channel *ch, int error);
void vph_session_kill(struct vph_session *session);
void vph_session_wait_revoked(struct vph_channel *ch);
int vph_session_enter(struct vph_session *session);
void vph_session_leave(struct vph_session *session);
void vph_session_event_locked(struct vph_session *session, u32 event, u32 from, u32 to);
void vph_session_parameters_locked(struct vph_session *session);

int vph_session_mmap(struct file *filp, struct vm_area_struct *vma);
int vph_session_region_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw);
int vph_session_iova_rw(struct vph_session *session, const struct vfio_pci_hooks_rw *rw);

/* --------------------------------------------------------------- watch.c */

void vph_watch_begin_locked(struct vph_session *session);
int vph_watch_end_locked(struct vph_session *session);
bool vph_watch_give_locked(struct vph_channel *ch, struct vph_request *request);
bool vph_watch_tell_locked(struct vph_session *session, int *slot);
bool vph_watch_await(struct vph_session *session, const struct vph_request *request);

/* ------------------------------------------------------------- iommufd.c */

#if IS_ENABLED(CONFIG_IOMMUFD)
int vph_bind_iommufd(struct vfio_device *core_vdev, struct iommufd_ctx *ictx, u32 *out_device_id);
void vph_unbind_iommufd(struct vfio_device *core_vdev);
int vph_attach_ioas(struct vfio_device *core_vdev, u32 *pt_id);
void vph_detach_ioas(struct vfio_device *core_vdev);
int vph_iova_rw(struct vph_device *hdev, dma_addr_t iova, void *data, size_t length, bool write);
#else
#define vph_bind_iommufd	vfio_iommufd_physical_bind
#define vph_unbind_iommufd	vfio_iommufd_physical_unbind
#define vph_attach_ioas		vfio_iommufd_physical_attach_ioas
#define vph_detach_ioas		vfio_iommufd_physical_detach_ioas
static inline int vph_iova_rw(struct vph_device *hdev, dma_addr_t iova, void *data, size_t length,
			      bool write)
{
	return vfio_dma_rw(&hdev->core.vdev, iova, data, length, write);
}
#endif

/* ----------------------------------------------------------- dirty_log.c */

extern const struct vfio_log_ops vph_log_ops;

/* ------------------------------------------------ migration.c, data_file.c */

extern const struct vfio_migration_ops vph_migration_ops;

void vph_migration_init(struct vph_device *hdev);
void vph_migration_exit(struct vph_device *hdev);
void vph_migration_open(struct vph_device *hdev);
void vph_migration_close(struct vph_device *hdev);
void vph_migration_reset_done(struct vph_device *hdev);
int vph_migration_start_once(struct vph_device *hdev, struct vph_program *program);
int vph_migration_set_parameters(struct vph_device *hdev,
				 char (*values)[VFIO_PCI_HOOKS_VALUE_LEN]);
void vph_migration_saved(struct vph_device *hdev, u32 *value);
void vph_migration_scrub(struct vph_device *hdev, const struct vph_data_file *file);

struct file *vph_data_file_create(struct vph_device *hdev, bool loading, bool precopy,
				  struct vph_data_file **fp);
void vph_data_file_final(struct vph_data_file *file);
void vph_data_file_end(struct vph_data_file *file, int error);
int vph_data_file_dead(const struct vph_data_file *file);
bool vph_data_file_loaded(struct vph_data_file *file);
void vph_data_file_left(struct vph_data_file *file, u64 *unread, u64 *left);

#endif /* VFIO_PCI_HOOKS_PRIV_H */

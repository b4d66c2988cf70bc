/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In-kernel handlers of vfio-pci-hooks.
 *
 * A handler is chosen by its name in the definition of a function, and asked at
 * its place in the chain. Each operation answers
 *
 *	0	handled: the result stands, nobody behind is asked
 *	> 0	pass: the next handler is asked, past the last one vfio-pci's default
 *	< 0	failed with this errno, nobody behind is asked
 *
 * and an operation that is NULL passes. See docs/vfio-pci-hooks.md.
 */
#ifndef _LINUX_VFIO_PCI_HOOKS_H
#define _LINUX_VFIO_PCI_HOOKS_H

#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/types.h>
#include <uapi/linux/vfio_pci_hooks.h>

struct pci_dev;

/**
 * struct vfio_pci_hooks_link - One handler in the chain of one device
 *
 * Opaque. Lives as long as the device is bound, and so does its data pointer.
 */
struct vfio_pci_hooks_link;

/**
 * struct vfio_pci_hooks_access - A read or write of a trapped range
 * @region: VFIO_PCI_BAR0_REGION_INDEX and so on, or VFIO_PCI_CONFIG_REGION_INDEX
 * @length: bytes; 1, 2, 4 or 8 (config space: at most 4), naturally aligned
 * @offset: in the region
 * @write: true for a write
 * @data: bytes in the device's order. A write's were copied from the VMM once
 *	  and are what the device receives; a read's are what the VMM receives
 *	  after the answer 0.
 */
struct vfio_pci_hooks_access {
	u32 region;
	u32 length;
	u64 offset;
	bool write;
	u8 data[8];
};

/**
 * struct vfio_pci_hooks_call - An ioctl or device feature
 * @number: of an ioctl, above VFIO_BASE; of a device feature, its flags
 * @length: bytes of @data that came from the VMM, and go back after the answer 0
 * @data: the argument (at most 4032 bytes), copied once. An ioctl's begins with
 *	  argsz; a feature's is the payload.
 *
 * After a pass past the last handler, the default reads the VMM's argument
 * again: a handler that guards must answer, not pass on what it has checked.
 */
struct vfio_pci_hooks_call {
	u32 number;
	u32 length;
	u8 *data;
};

/**
 * struct vfio_pci_hooks_log - One REPORT of DMA logging
 *
 * Opaque. Lives as long as the call of log_report that has it.
 */
struct vfio_pci_hooks_log;

/* Number of operations, up to device_feature, in the struct below that a handler was built with. */
#define VFIO_PCI_HOOKS_OPS_KNOWN	8

/* A guard, not an observer: operations unknown to it must not go around it. */
#define VFIO_PCI_HOOKS_REFUSE_UNKNOWN	BIT(0)

/**
 * struct vfio_pci_hooks_ops - A handler
 * @size: sizeof(struct vfio_pci_hooks_ops); members only get appended
 * @known: VFIO_PCI_HOOKS_OPS_KNOWN
 * @flags: VFIO_PCI_HOOKS_REFUSE_UNKNOWN or 0. A chain with a handler that
 *	   refuses unknown operations and knows fewer than the host module cannot
 *	   be defined.
 * @owner: THIS_MODULE, referenced while a definition names the handler
 * @name: what a definition calls it; shorter than VFIO_PCI_HOOKS_NAME_LEN. The
 *	  module has the alias "vfio-pci-hooks-handler-<name>".
 * @id_table: functions that it is for; NULL: any
 * @ranges: ranges of BARs and config space that it wants
 * @nr_ranges: length of @ranges, at most VFIO_PCI_HOOKS_MAX_RANGES
 * @ioctls: bit n: it wants the ioctl VFIO_BASE + n
 * @device_features: bit n: it wants VFIO_DEVICE_FEATURE n
 * @open: the device is being opened; a negative errno refuses
 * @close: the device is being closed; called for each successful open
 * @reset: the device was reset. Must neither wait nor touch the device
 *	   through the functions below: vfio-pci's memory_lock may be held.
 * @state: the migration state has changed; rules as for @reset, which may be why
 * @read: read in one of its ranges
 * @write: write in one of its ranges
 * @ioctl: one of its ioctls
 * @device_feature: one of its device features
 *
 * @log_start: what the device writes into guest memory is to be logged from now on; a
 *	       negative errno fails the VMM's START
 * @log_stop: no longer
 * @log_report: passes each page of [iova, iova + length) that the device has written
 *		since the last call that had it (or since @log_start) to
 *		vfio_pci_hooks_log_dirty(), and perhaps others. What it has passed
 *		counts as told, also if it fails; then every page is reported.
 *
 * A logger has all of the last three. They are no operations that others let pass: a
 * chain has at most one logger, before the channel, needs an owner of its migration, and
 * is refused where the kernel cannot REPORT. @log_start and @log_stop come one at a time,
 * @log_report at any time; without a @log_stop, @close ends the logging.
 *
 * All run in process context. @open and @close hold the device set's lock. read,
 * write, ioctl and device_feature hold no lock, run concurrently, and may sleep. In
 * an access to config space that the worker asks for, page faults are off.
 */
struct vfio_pci_hooks_ops {
	size_t size;
	u32 known;
	u32 flags;
	struct module *owner;
	const char *name;
	const struct pci_device_id *id_table;
	const struct vfio_pci_hooks_range *ranges;
	unsigned int nr_ranges;
	u32 ioctls;
	u32 device_features;

	int (*open)(struct vfio_pci_hooks_link *link);
	void (*close)(struct vfio_pci_hooks_link *link);
	void (*reset)(struct vfio_pci_hooks_link *link);
	void (*state)(struct vfio_pci_hooks_link *link, u32 from, u32 to);
	int (*read)(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_access *access);
	int (*write)(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_access *access);
	int (*ioctl)(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_call *call);
	int (*device_feature)(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_call *call);

	int (*log_start)(struct vfio_pci_hooks_link *link);
	void (*log_stop)(struct vfio_pci_hooks_link *link);
	int (*log_report)(struct vfio_pci_hooks_link *link, u64 iova, u64 length,
			  struct vfio_pci_hooks_log *log);
};

#define VFIO_PCI_HOOKS_OPS_INIT						\
	.size = sizeof(struct vfio_pci_hooks_ops),			\
	.known = VFIO_PCI_HOOKS_OPS_KNOWN,				\
	.owner = THIS_MODULE

#define MODULE_ALIAS_VFIO_PCI_HOOKS_HANDLER(name)			\
	MODULE_ALIAS("vfio-pci-hooks-handler-" name)

int vfio_pci_hooks_register(const struct vfio_pci_hooks_ops *ops);
void vfio_pci_hooks_unregister(const struct vfio_pci_hooks_ops *ops);

struct pci_dev *vfio_pci_hooks_pci_dev(struct vfio_pci_hooks_link *link);
void vfio_pci_hooks_set_data(struct vfio_pci_hooks_link *link, void *data);
void *vfio_pci_hooks_data(struct vfio_pci_hooks_link *link);
int vfio_pci_hooks_run_rest(struct vfio_pci_hooks_link *link,
			    struct vfio_pci_hooks_access *access);

/* For loggers, in read, write and log_*: threads of the VMM, with no lock of the module held. */
int vfio_pci_hooks_read_register(struct vfio_pci_hooks_link *link, unsigned int bar, u64 offset,
				 u32 *value);
int vfio_pci_hooks_read_guest(struct vfio_pci_hooks_link *link, u64 iova, void *data,
			      size_t length);
void vfio_pci_hooks_log_dirty(struct vfio_pci_hooks_log *log, u64 iova, u64 length);

#endif /* _LINUX_VFIO_PCI_HOOKS_H */

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The definition of one function: what its chain is, checked once, then constant.
 */
#include <linux/cleanup.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "vfio_pci_hooks_priv.h"

#define VPH_DEFINE_FLAGS	(VFIO_PCI_HOOKS_DEFINE_MIGRATION | VFIO_PCI_HOOKS_DEFINE_FAIL)
#define VPH_MAX_STATE		BIT_ULL(48)

/* GET_INFO to IOEVENTFD but region info, whose answer the definition gives. */
#define VPH_IOCTLS	(GENMASK(16, 7) & ~BIT(8))

int vph_range_check(struct pci_dev *pdev, const struct vfio_pci_hooks_range *range)
{
	u64 end, size;

	switch (range->region) {
	case VFIO_PCI_BAR0_REGION_INDEX ... VFIO_PCI_BAR5_REGION_INDEX:
		size = pci_resource_len(pdev, range->region);
		break;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		size = pdev->cfg_size;
		break;
	default:
		return -EINVAL;
	}
	if (!range->ops || (range->ops & ~(VFIO_PCI_HOOKS_OP_READ | VFIO_PCI_HOOKS_OP_WRITE)) ||
	    !range->length || check_add_overflow(range->offset, range->length, &end) || end > size)
		return -EINVAL;
	return 0;
}

static int vph_define_ranges(struct vph_definition *def, const struct vfio_pci_hooks_define *d)
{
	unsigned int i;

	if (d->nr_ranges > VFIO_PCI_HOOKS_MAX_RANGES)
		return -EINVAL;
	if (copy_from_user(def->ranges, u64_to_user_ptr(d->ranges),
			   array_size(d->nr_ranges, sizeof(def->ranges[0]))))
		return -EFAULT;
	for (i = 0; i < d->nr_ranges; i++) {
		if (vph_range_check(def->pdev, &def->ranges[i])) {
			pci_notice_ratelimited(def->pdev, "range %u is not valid\n", i);
			return -EINVAL;
		}
	}
	def->nr_ranges = d->nr_ranges;
	return 0;
}

static int vph_handler_check(struct pci_dev *pdev, const struct vfio_pci_hooks_ops *ops)
{
	unsigned int i;

	if ((ops->flags & VFIO_PCI_HOOKS_REFUSE_UNKNOWN) &&
	    ops->known < VFIO_PCI_HOOKS_OPS_KNOWN) {
		pci_notice_ratelimited(pdev,
				       "handler %s knows %u of %u operations and refuses the others\n",
				       ops->name, ops->known, VFIO_PCI_HOOKS_OPS_KNOWN);
		return -EOPNOTSUPP;
	}
	if (ops->id_table && !pci_match_id(ops->id_table, pdev)) {
		pci_notice_ratelimited(pdev, "handler %s is not for this function\n", ops->name);
		return -ENODEV;
	}
	for (i = 0; i < ops->nr_ranges; i++) {
		if (vph_range_check(pdev, &ops->ranges[i])) {
			pci_notice_ratelimited(pdev, "handler %s: range %u is not valid here\n",
					       ops->name, i);
			return -ENODEV;
		}
	}
	if (ops->log_report && (!ops->log_start || !ops->log_stop)) {
		pci_notice_ratelimited(pdev, "handler %s is half a logger\n", ops->name);
		return -EINVAL;
	}
	if (ops->log_report && !VPH_CAN_REPORT_DMA) {
		pci_notice_ratelimited(pdev,
				       "handler %s logs DMA, which nobody can ask for in this kernel (CONFIG_IOMMUFD_DRIVER)\n",
				       ops->name);
		return -EOPNOTSUPP;
	}
	if (ops->ioctls & ~VPH_IOCTLS) {
		pci_notice_ratelimited(pdev, "handler %s wants ioctls that it cannot have\n",
				       ops->name);
		return -EINVAL;
	}
	return 0;
}

static int vph_define_handlers(struct vph_definition *def, const struct vfio_pci_hooks_define *d)
{
	struct vfio_pci_hooks_handler name;
	const struct vph_handler *handler;
	unsigned int i;
	int ret;

	if (d->nr_handlers > VFIO_PCI_HOOKS_MAX_HANDLERS)
		return -EINVAL;

	for (i = 0; i < d->nr_handlers; i++) {
		if (copy_from_user(&name, u64_to_user_ptr(d->handlers) + i * sizeof(name),
				   sizeof(name)))
			return -EFAULT;
		if (strnlen(name.name, sizeof(name.name)) == sizeof(name.name) || !name.name[0])
			return -EINVAL;

		handler = vph_handler_get(name.name);
		if (!handler) {
			pci_notice_ratelimited(def->pdev, "no handler %s\n", name.name);
			return -ENOENT;
		}
		def->handlers[def->nr_handlers++] = handler;

		if (handler == &vph_channel_handler) {
			if (def->channel >= 0)
				return -EINVAL;
			def->channel = i;
		}
		ret = vph_handler_check(def->pdev, &handler->ops);
		if (ret)
			return ret;

		if (!handler->ops.log_report)
			continue;
		if (def->logger >= 0) {
			pci_notice_ratelimited(def->pdev, "handlers %s and %s both log DMA\n",
					       def->handlers[def->logger]->ops.name,
					       handler->ops.name);
			return -EINVAL;
		}
		def->logger = i;
	}
	return 0;
}

/* A logger takes locks that must not be taken in the worker's accesses, which go behind it. */
static int vph_define_logger(const struct vph_definition *def)
{
	const char *why;

	if (def->logger < 0)
		return 0;
	if (!(def->flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION))
		why = "logs DMA of a device that does not migrate";
	else if (def->logger > def->channel)
		why = "logs DMA and stands behind the channel";
	else
		return 0;
	pci_notice_ratelimited(def->pdev, "handler %s %s\n",
			       def->handlers[def->logger]->ops.name, why);
	return -EINVAL;
}

static int vph_define_programs(struct vph_definition *def, const struct vfio_pci_hooks_define *d)
{
	const struct {
		const struct vfio_pci_hooks_program *from;
		struct vph_program **to;
		bool may_wait;
	} programs[] = {
		{ &d->stop, &def->stop, true },
		{ &d->start, &def->start, true },
		{ &d->reset, &def->reset, false },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(programs); i++) {
		struct vph_program *program;

		program = vph_program_copy(def->pdev, programs[i].from, programs[i].may_wait);
		if (IS_ERR(program))
			return PTR_ERR(program);
		*programs[i].to = program;
	}
	return 0;
}

static int vph_define_limits(struct vph_definition *def, const struct vfio_pci_hooks_define *d)
{
	if ((d->flags & ~VPH_DEFINE_FLAGS) || d->reserved0 ||
	    d->guest_memory > VFIO_PCI_HOOKS_MEMORY_WRITE ||
	    !d->access_limit_ms || d->access_limit_ms > 10000 ||
	    !d->state_limit_ms || d->state_limit_ms > 600000 ||
	    d->shadow_size > VFIO_PCI_HOOKS_MAX_SHADOW || d->max_state > VPH_MAX_STATE ||
	    (d->ioctls & ~VPH_IOCTLS))
		return -EINVAL;
	if ((d->flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION) && !d->max_state)
		return -EINVAL;

	def->flags = d->flags;
	def->guest_memory = d->guest_memory;
	def->access_limit_ms = d->access_limit_ms;
	def->state_limit_ms = d->state_limit_ms;
	def->shadow_size = d->shadow_size;
	def->max_state = d->max_state;
	def->ioctls = d->ioctls;
	def->device_features = d->device_features;
	return 0;
}

/* What belongs to the worker needs a place in the chain. */
static int vph_define_channel(const struct vph_definition *def)
{
	if (def->channel >= 0)
		return 0;
	if (def->nr_ranges || def->ioctls || def->device_features || def->shadow_size ||
	    (def->flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION))
		return -EINVAL;
	return 0;
}

static void vph_definition_release(struct kref *kref)
{
	struct vph_definition *def = container_of(kref, struct vph_definition, kref);
	unsigned int i;

	for (i = 0; i < def->nr_handlers; i++)
		vph_handler_put(def->handlers[i]);
	kfree(def->stop);
	kfree(def->start);
	kfree(def->reset);
	kvfree(def->parameters);
	pci_dev_put(def->pdev);
	kfree(def);
}

void vph_definition_put(struct vph_definition *def)
{
	kref_put(&def->kref, vph_definition_release);
}

/* Asked when the driver binds, and BARs can change no more: since DEFINE they may have shrunk. */
int vph_definition_fits(const struct vph_definition *def)
{
	unsigned int i;
	int ret;

	for (i = 0; i < def->nr_ranges; i++)
		if (vph_range_check(def->pdev, &def->ranges[i]))
			return -EINVAL;
	for (i = 0; i < def->nr_handlers; i++) {
		ret = vph_handler_check(def->pdev, &def->handlers[i]->ops);
		if (ret)
			return ret;
	}
	ret = vph_program_check(def->pdev, def->stop, true);
	if (!ret)
		ret = vph_program_check(def->pdev, def->start, true);
	if (!ret)
		ret = vph_program_check(def->pdev, def->reset, false);
	return ret;
}

struct vph_definition *vph_definition_create(struct pci_dev *pdev,
					     const struct vfio_pci_hooks_define *define)
{
	struct vph_definition *def;
	int ret;

	def = kzalloc(sizeof(*def), GFP_KERNEL_ACCOUNT);
	if (!def)
		return ERR_PTR(-ENOMEM);
	kref_init(&def->kref);
	def->pdev = pci_dev_get(pdev);
	def->channel = -1;
	def->logger = -1;

	ret = vph_define_limits(def, define);
	if (!ret)
		ret = vph_define_ranges(def, define);
	if (!ret)
		ret = vph_define_programs(def, define);
	if (!ret)
		ret = vph_define_handlers(def, define);
	if (!ret)
		ret = vph_define_channel(def);
	if (!ret)
		ret = vph_define_logger(def);
	if (!ret)
		ret = vph_define_parameters(def, define);
	if (ret) {
		vph_definition_put(def);
		return ERR_PTR(ret);
	}
	return def;
}

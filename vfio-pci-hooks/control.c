// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/vfio-pci-hooks, and the table of functions that are defined or bound.
 */
#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vfio_pci_hooks_priv.h"

/*
 * A function that has a definition, or is bound to this driver, or both. The
 * definition belongs to this instance of the struct pci_dev, which it references:
 * a function that appears at the same address later is another one.
 */
struct vph_function {
	struct list_head node;
	struct pci_dev *pdev;		/* referenced */
	struct vph_definition *def;
	struct vph_device *hdev;	/* from the end of probe to remove */
	bool bound;
};

static LIST_HEAD(vph_functions);
static DEFINE_MUTEX(vph_functions_lock);

static struct vph_function *vph_function_find(const struct pci_dev *pdev)
{
	struct vph_function *function;

	lockdep_assert_held(&vph_functions_lock);
	list_for_each_entry(function, &vph_functions, node)
		if (function->pdev == pdev)
			return function;
	return NULL;
}

static struct vph_function *vph_function_make(struct pci_dev *pdev)
{
	struct vph_function *function = vph_function_find(pdev);

	if (function)
		return function;
	function = kzalloc(sizeof(*function), GFP_KERNEL);
	if (function) {
		function->pdev = pci_dev_get(pdev);
		list_add(&function->node, &vph_functions);
	}
	return function;
}

static void vph_function_undefine(struct vph_function *function)
{
	if (function->def)
		vph_definition_put(function->def);
	function->def = NULL;
}

static void vph_function_trim(struct vph_function *function)
{
	if (function->def || function->bound)
		return;
	list_del(&function->node);
	pci_dev_put(function->pdev);
	kfree(function);
}

/*
 * The driver begins to bind the function. Returns its definition, referenced and
 * constant until vph_unbind(), or NULL.
 */
struct vph_definition *vph_bind(struct pci_dev *pdev)
{
	struct vph_function *function;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_make(pdev);
	if (!function)
		return ERR_PTR(-ENOMEM);
	function->bound = true;
	if (function->def)
		kref_get(&function->def->kref);
	return function->def;
}

void vph_bound(struct vph_device *hdev)
{
	guard(mutex)(&vph_functions_lock);
	vph_function_find(hdev->core.pdev)->hdev = hdev;
}

void vph_unbound(struct vph_device *hdev)
{
	guard(mutex)(&vph_functions_lock);
	vph_function_find(hdev->core.pdev)->hdev = NULL;
}

void vph_unbind(struct pci_dev *pdev)
{
	struct vph_function *function;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_find(pdev);
	function->bound = false;
	vph_function_trim(function);
}

static int vph_bus_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct pci_dev *pdev = to_pci_dev((struct device *)data);
	struct vph_function *function;

	if (action != BUS_NOTIFY_REMOVED_DEVICE)
		return NOTIFY_DONE;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_find(pdev);
	if (function) {
		vph_function_undefine(function);
		vph_function_trim(function);
	}
	return NOTIFY_OK;
}

static struct notifier_block vph_bus_notifier = {
	.notifier_call = vph_bus_notify,
};

/* One whose DEFINE came between its notification and its end was not dropped then. */
static void vph_functions_prune(void)
{
	struct vph_function *function, *next;

	lockdep_assert_held(&vph_functions_lock);
	list_for_each_entry_safe(function, next, &vph_functions, node) {
		if (function->bound || device_is_registered(&function->pdev->dev))
			continue;
		vph_function_undefine(function);
		vph_function_trim(function);
	}
}

static struct pci_dev *vph_address_get(const struct vfio_pci_hooks_address *address)
{
	struct pci_dev *pdev;

	if (address->reserved)
		return ERR_PTR(-EINVAL);
	pdev = pci_get_domain_bus_and_slot(address->domain, address->bus, address->devfn);
	return pdev ?: ERR_PTR(-ENODEV);
}

static long vph_get_features(void __user *arg)
{
	struct vfio_pci_hooks_features features;
	u32 argsz;
	int ret;

	ret = vph_copy_in(&features, sizeof(features), arg);
	if (ret)
		return ret;
	if (features.flags)
		return -EINVAL;

	argsz = features.argsz;
	features = (struct vfio_pci_hooks_features) {
		.argsz = sizeof(features),
		.features = VFIO_PCI_HOOKS_FEATURE_MIGRATION | VFIO_PCI_HOOKS_FEATURE_IOVA_RW |
			    VFIO_PCI_HOOKS_FEATURE_IOCTL | VFIO_PCI_HOOKS_FEATURE_PARAMETERS |
			    VFIO_PCI_HOOKS_FEATURE_FILL | VFIO_PCI_HOOKS_FEATURE_TOUCHED |
			    VFIO_PCI_HOOKS_FEATURE_WATCH,
		.max_handlers = VFIO_PCI_HOOKS_MAX_HANDLERS,
		.max_ranges = VFIO_PCI_HOOKS_MAX_RANGES,
		.max_steps = VFIO_PCI_HOOKS_MAX_STEPS,
		.max_shadow = VFIO_PCI_HOOKS_MAX_SHADOW,
		.stream_size = VFIO_PCI_HOOKS_STREAM_SIZE,
		.slots = VFIO_PCI_HOOKS_SLOTS,
	};
	return vph_copy_out(arg, &features, sizeof(features), argsz);
}

static int vph_define_function(struct pci_dev *pdev, struct vph_definition *def)
{
	struct vph_function *function;

	guard(mutex)(&vph_functions_lock);
	vph_functions_prune();
	if (!device_is_registered(&pdev->dev))
		return -ENODEV;
	function = vph_function_make(pdev);
	if (!function)
		return -ENOMEM;
	if (function->bound)
		return -EBUSY;
	vph_function_undefine(function);
	function->def = def;
	return 0;
}

static bool vph_is_bound(struct pci_dev *pdev)
{
	struct vph_function *function;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_find(pdev);
	return function && function->bound;
}

static long vph_define(void __user *arg)
{
	struct vfio_pci_hooks_define define;
	struct vph_definition *def;
	struct pci_dev *pdev;
	int ret;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	ret = vph_copy_in(&define, sizeof(define), arg);
	if (ret)
		return ret;
	pdev = vph_address_get(&define.address);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);

	ret = -ENODEV;
	if (pdev->vendor != define.vendor || pdev->device != define.device)
		goto out_put;
	/* Asked for again below, here so that nothing else hides it. */
	ret = -EBUSY;
	if (vph_is_bound(pdev))
		goto out_put;

	def = vph_definition_create(pdev, &define);
	ret = PTR_ERR_OR_ZERO(def);
	if (ret)
		goto out_put;
	ret = vph_define_function(pdev, def);
	if (ret)
		vph_definition_put(def);
out_put:
	pci_dev_put(pdev);
	return ret;
}

static int vph_undefine_function(struct pci_dev *pdev)
{
	struct vph_function *function;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_find(pdev);
	if (!function || (!function->bound && !function->def))
		return -ENOENT;
	if (function->bound)
		return -EBUSY;
	vph_function_undefine(function);
	vph_function_trim(function);
	return 0;
}

static long vph_undefine(void __user *arg)
{
	struct vfio_pci_hooks_undefine undefine;
	struct pci_dev *pdev;
	int ret;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	ret = vph_copy_in(&undefine, sizeof(undefine), arg);
	if (ret)
		return ret;
	if (undefine.flags)
		return -EINVAL;
	pdev = vph_address_get(&undefine.address);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	ret = vph_undefine_function(pdev);
	pci_dev_put(pdev);
	return ret;
}

static int vph_attach_function(struct pci_dev *pdev, int *fd, struct file **filep)
{
	struct vph_function *function;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_find(pdev);
	if (!function || !function->def || function->def->channel < 0)
		return -ENOENT;
	if (!function->hdev)
		return -ENXIO;
	return vph_channel_attach(function->hdev->channel, fd, filep);
}

static long vph_attach(void __user *arg)
{
	struct vfio_pci_hooks_attach attach;
	struct pci_dev *pdev;
	struct file *filep;
	u32 argsz;
	int ret;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	ret = vph_copy_in(&attach, sizeof(attach), arg);
	if (ret)
		return ret;
	if (attach.flags || attach.reserved)
		return -EINVAL;
	pdev = vph_address_get(&attach.address);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	ret = vph_attach_function(pdev, &attach.fd, &filep);
	pci_dev_put(pdev);
	if (ret)
		return ret;

	argsz = attach.argsz;
	attach.argsz = sizeof(attach);
	ret = vph_copy_out(arg, &attach, sizeof(attach), argsz);
	if (ret) {
		put_unused_fd(attach.fd);
		fput(filep);
		return ret;
	}
	fd_install(attach.fd, filep);
	return 0;
}

static int vph_status_function(struct pci_dev *pdev, struct vfio_pci_hooks_status *status)
{
	struct vph_function *function;
	struct vph_device *hdev;
	struct vph_channel *ch;

	guard(mutex)(&vph_functions_lock);
	function = vph_function_find(pdev);
	if (!function)
		return -ENOENT;

	status->flags = function->bound ? VFIO_PCI_HOOKS_STATUS_BOUND : 0;
	status->mig_state = VFIO_DEVICE_STATE_RUNNING;
	hdev = function->hdev;
	if (!hdev || !hdev->def)
		return 0;

	if (READ_ONCE(hdev->open))
		status->flags |= VFIO_PCI_HOOKS_STATUS_OPEN;
	status->resets = atomic64_read(&hdev->resets);
	if (vph_owns_migration(hdev))
		status->mig_state = READ_ONCE(hdev->mig.state);
	ch = hdev->channel;
	if (!ch)
		return 0;

	guard(mutex)(&ch->lock);
	if (ch->attached)
		status->flags |= VFIO_PCI_HOOKS_STATUS_ATTACHED;
	if (ch->session)
		status->flags |= VFIO_PCI_HOOKS_STATUS_SERVED;
	if (ch->incomplete)
		status->flags |= VFIO_PCI_HOOKS_STATUS_INCOMPLETE;
	status->accesses = ch->accesses;
	status->missed = ch->missed;
	status->revoked = ch->revoked;
	return 0;
}

static long vph_get_status(void __user *arg)
{
	struct vfio_pci_hooks_status status;
	struct pci_dev *pdev;
	u32 argsz;
	int ret;

	ret = vph_copy_in(&status, sizeof(status), arg);
	if (ret)
		return ret;
	if (status.flags || status.reserved)
		return -EINVAL;
	pdev = vph_address_get(&status.address);
	if (IS_ERR(pdev))
		return PTR_ERR(pdev);
	ret = vph_status_function(pdev, &status);
	pci_dev_put(pdev);
	if (ret)
		return ret;

	argsz = status.argsz;
	status.argsz = sizeof(status);
	return vph_copy_out(arg, &status, sizeof(status), argsz);
}

static long vph_control_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case VFIO_PCI_HOOKS_GET_FEATURES:
		return vph_get_features(uarg);
	case VFIO_PCI_HOOKS_DEFINE:
		return vph_define(uarg);
	case VFIO_PCI_HOOKS_UNDEFINE:
		return vph_undefine(uarg);
	case VFIO_PCI_HOOKS_ATTACH:
		return vph_attach(uarg);
	case VFIO_PCI_HOOKS_GET_STATUS:
		return vph_get_status(uarg);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations vph_control_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= vph_control_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice vph_control = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= VPH_DRIVER_NAME,
	.fops	= &vph_control_fops,
	.mode	= 0600,
};

int __init vph_control_init(void)
{
	int ret;

	ret = bus_register_notifier(&pci_bus_type, &vph_bus_notifier);
	if (ret)
		return ret;
	ret = misc_register(&vph_control);
	if (ret)
		bus_unregister_notifier(&pci_bus_type, &vph_bus_notifier);
	return ret;
}

void vph_control_exit(void)
{
	struct vph_function *function, *next;

	misc_deregister(&vph_control);
	bus_unregister_notifier(&pci_bus_type, &vph_bus_notifier);
	list_for_each_entry_safe(function, next, &vph_functions, node) {
		vph_function_undefine(function);
		vph_function_trim(function);
	}
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * In-kernel handlers: registration, and look-up by name with demand loading.
 */
#include <linux/cleanup.h>
#include <linux/kmod.h>
#include <linux/slab.h>

#include "vfio_pci_hooks_priv.h"

static LIST_HEAD(vph_handlers);
static DEFINE_MUTEX(vph_handlers_lock);

static struct vph_handler *vph_handler_find(const char *name)
{
	struct vph_handler *handler;

	lockdep_assert_held(&vph_handlers_lock);
	list_for_each_entry(handler, &vph_handlers, node)
		if (!strcmp(handler->ops.name, name))
			return handler;
	return NULL;
}

/**
 * vfio_pci_hooks_register - Makes a handler known
 * @ops: the handler; copied, but the memory that it points to must stay
 *
 * The handler is asked for devices whose definition names it.
 *
 * Return: 0; -EINVAL for a malformed @ops; -EEXIST if the name is taken.
 */
int vfio_pci_hooks_register(const struct vfio_pci_hooks_ops *ops)
{
	struct vph_handler *handler;

	if (ops->size < offsetofend(struct vfio_pci_hooks_ops, device_features) ||
	    !ops->owner || !ops->name || !*ops->name ||
	    strlen(ops->name) >= VFIO_PCI_HOOKS_NAME_LEN ||
	    ops->nr_ranges > VFIO_PCI_HOOKS_MAX_RANGES || (ops->nr_ranges && !ops->ranges) ||
	    (ops->flags & ~VFIO_PCI_HOOKS_REFUSE_UNKNOWN))
		return -EINVAL;

	handler = kzalloc(sizeof(*handler), GFP_KERNEL);
	if (!handler)
		return -ENOMEM;
	memcpy(&handler->ops, ops, min(ops->size, sizeof(*ops)));

	guard(mutex)(&vph_handlers_lock);
	if (vph_handler_find(ops->name) || !strcmp(ops->name, VFIO_PCI_HOOKS_CHANNEL_NAME)) {
		kfree(handler);
		return -EEXIST;
	}
	list_add_tail(&handler->node, &vph_handlers);
	return 0;
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_register);

/**
 * vfio_pci_hooks_unregister - Takes a handler back
 * @ops: what was registered
 *
 * To be called from the exit function of the module that owns the handler: the
 * references of definitions keep it from running before they are gone.
 */
void vfio_pci_hooks_unregister(const struct vfio_pci_hooks_ops *ops)
{
	struct vph_handler *handler;

	guard(mutex)(&vph_handlers_lock);
	handler = vph_handler_find(ops->name);
	if (WARN_ON(!handler || handler->ops.owner != ops->owner))
		return;
	list_del(&handler->node);
	kfree(handler);
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_unregister);

static const struct vph_handler *vph_handler_try_get(const char *name)
{
	struct vph_handler *handler;

	guard(mutex)(&vph_handlers_lock);
	handler = vph_handler_find(name);
	return handler && try_module_get(handler->ops.owner) ? handler : NULL;
}

/* The handler with its module referenced, or NULL. */
const struct vph_handler *vph_handler_get(const char *name)
{
	const struct vph_handler *handler;

	/* No owner: a definition alone does not keep this module. */
	if (!strcmp(name, VFIO_PCI_HOOKS_CHANNEL_NAME))
		return &vph_channel_handler;

	handler = vph_handler_try_get(name);
	if (!handler) {
		request_module("vfio-pci-hooks-handler-%s", name);
		handler = vph_handler_try_get(name);
	}
	return handler;
}

void vph_handler_put(const struct vph_handler *handler)
{
	module_put(handler->ops.owner);
}

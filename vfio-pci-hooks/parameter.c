// SPDX-License-Identifier: GPL-2.0-only
/*
 * Model and migration parameters: what a definition says of them, and the values,
 * which live in the channel from bind to unbind.
 */
#include <linux/cleanup.h>
#include <linux/kobject.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "vfio_pci_hooks_priv.h"

/* ------------------------------------------------------------------------ texts */

bool vph_is_printable(const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (text[i] < 0x20 || text[i] > 0x7e)
			return false;
	return true;
}

/* One line that ends within its array. */
static bool vph_is_line(const char *text, size_t size)
{
	size_t length = strnlen(text, size);

	return length < size && vph_is_printable(text, length);
}

static bool vph_is_name(const char *text, size_t size)
{
	size_t length = strnlen(text, size);

	return length && length < size && text[0] >= 'a' && text[0] <= 'z' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == length &&
	       strcmp(text, "model");
}

/* length: below VFIO_PCI_HOOKS_VALUE_LEN */
static bool vph_is_value(const char *text, size_t length)
{
	return length && vph_is_printable(text, length) && !memchr(text, ' ', length) &&
	       !memchr(text, '|', length);
}

/* Without leading zeros: no other spelling of a number. */
static bool vph_is_number(const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (text[i] < '0' || text[i] > '9')
			return false;
	return length == 1 || (length && text[0] != '0');
}

/* Of numbers as above, the longer one is the larger one. */
static bool vph_is_at_most(const char *a, size_t a_length, const char *b, size_t b_length)
{
	return a_length != b_length ? a_length < b_length : memcmp(a, b, a_length) <= 0;
}

static bool vph_item_takes(const char *item, size_t item_length, const char *value, size_t length)
{
	const char *high, *dash = memchr(item, '-', item_length);
	size_t low_length, high_length;

	if (dash) {
		high = dash + 1;
		low_length = dash - item;
		high_length = item_length - low_length - 1;
		if (vph_is_number(item, low_length) && vph_is_number(high, high_length))
			return vph_is_number(value, length) &&
			       vph_is_at_most(item, low_length, value, length) &&
			       vph_is_at_most(value, length, high, high_length);
	}
	return length == item_length && !memcmp(item, value, length);
}

/* core/test-vectors/allowed_values.csv has examples; userspace goes by the same rule. */
static bool vph_is_allowed(const char *allowed, const char *value, size_t length)
{
	const char *end;

	for (;; allowed = end + 1) {
		end = strchrnul(allowed, '|');
		if (vph_item_takes(allowed, end - allowed, value, length))
			return true;
		if (!*end)
			return false;
	}
}

static bool vph_takes(const struct vfio_pci_hooks_parameter *parameter, const char *value,
		      size_t length)
{
	return vph_is_value(value, length) &&
	       vph_is_allowed(parameter->allowed_values, value, length);
}

static bool vph_takes_text(const struct vfio_pci_hooks_parameter *parameter,
			   const char value[VFIO_PCI_HOOKS_VALUE_LEN])
{
	size_t length = strnlen(value, VFIO_PCI_HOOKS_VALUE_LEN);

	return length < VFIO_PCI_HOOKS_VALUE_LEN && vph_takes(parameter, value, length);
}

/* ------------------------------------------------------------------- definition */

static bool vph_parameter_is_valid(const struct vfio_pci_hooks_parameter *p)
{
	return !(p->flags & ~VFIO_PCI_HOOKS_PARAMETER_RUNTIME) && !p->reserved &&
	       vph_is_name(p->name, sizeof(p->name)) &&
	       vph_is_line(p->allowed_values, sizeof(p->allowed_values)) &&
	       vph_is_line(p->description, sizeof(p->description)) &&
	       vph_takes_text(p, p->value) && vph_takes_text(p, p->init_value) &&
	       vph_takes_text(p, p->off_value);
}

int vph_define_parameters(struct vph_definition *def, const struct vfio_pci_hooks_define *d)
{
	unsigned int i, j;

	if (d->reserved || d->nr_parameters > VFIO_PCI_HOOKS_MAX_PARAMETERS ||
	    !vph_is_line(d->model, sizeof(d->model)))
		return -EINVAL;
	if (!d->model[0])
		return d->nr_parameters ? -EINVAL : 0;
	if (!(def->flags & VFIO_PCI_HOOKS_DEFINE_MIGRATION))
		return -EINVAL;

	strscpy(def->model, d->model, sizeof(def->model));
	if (!d->nr_parameters)
		return 0;
	def->parameters = kvmalloc_array(d->nr_parameters, sizeof(*def->parameters),
					 GFP_KERNEL_ACCOUNT);
	if (!def->parameters)
		return -ENOMEM;
	if (copy_from_user(def->parameters, u64_to_user_ptr(d->parameters),
			   array_size(d->nr_parameters, sizeof(*def->parameters))))
		return -EFAULT;
	for (i = 0; i < d->nr_parameters; i++) {
		if (!vph_parameter_is_valid(&def->parameters[i]))
			goto out_invalid;
		for (j = 0; j < i; j++)
			if (!strcmp(def->parameters[i].name, def->parameters[j].name))
				goto out_invalid;
	}
	def->nr_parameters = d->nr_parameters;
	return 0;

out_invalid:
	pci_notice_ratelimited(def->pdev, "parameter %u is not valid\n", i);
	return -EINVAL;
}

/* ----------------------------------------------------------------------- values */

int vph_parameters_init(struct vph_channel *ch)
{
	const struct vph_definition *def = ch->def;
	unsigned int i;

	if (!def->nr_parameters)
		return 0;
	ch->values = kcalloc(def->nr_parameters, sizeof(*ch->values), GFP_KERNEL_ACCOUNT);
	if (!ch->values)
		return -ENOMEM;
	for (i = 0; i < def->nr_parameters; i++)
		strscpy(ch->values[i], def->parameters[i].value, sizeof(ch->values[i]));
	return 0;
}

void vph_parameter_read(struct vph_channel *ch, unsigned int index,
			char value[VFIO_PCI_HOOKS_VALUE_LEN])
{
	guard(mutex)(&ch->lock);
	memcpy(value, ch->values[index], VFIO_PCI_HOOKS_VALUE_LEN);
}

/* The function is registered: whoever calls keeps it from leaving the driver. */
static void vph_parameter_tell(const struct vph_definition *def, unsigned int index)
{
	char parameter[sizeof("VFIO_PCI_HOOKS_PARAMETER=") + VFIO_PCI_HOOKS_NAME_LEN];
	char *env[] = { parameter, NULL };

	snprintf(parameter, sizeof(parameter), "VFIO_PCI_HOOKS_PARAMETER=%s",
		 def->parameters[index].name);
	kobject_uevent_env(&def->pdev->dev.kobj, KOBJ_CHANGE, env);
}

/* text: without NUL. Against open and close of the device the lock decides. */
static int vph_parameter_change(struct vph_channel *ch, unsigned int index, const char *text,
				size_t length)
{
	const struct vfio_pci_hooks_parameter *parameter = &ch->def->parameters[index];
	char value[VFIO_PCI_HOOKS_VALUE_LEN] = {};

	if (length >= sizeof(value) || !vph_takes(parameter, text, length))
		return -EINVAL;
	memcpy(value, text, length);

	guard(mutex)(&ch->lock);
	if (ch->hdev && !(parameter->flags & VFIO_PCI_HOOKS_PARAMETER_RUNTIME))
		return -EBUSY;
	if (!memcmp(ch->values[index], value, sizeof(value)))
		return 0;
	memcpy(ch->values[index], value, sizeof(value));
	if (ch->session)
		vph_session_parameters_locked(ch->session);
	return 1;
}

int vph_parameter_write(struct vph_channel *ch, unsigned int index, const char *text,
			size_t length)
{
	int ret;

	ret = vph_parameter_change(ch, index, text, length);
	if (ret <= 0)
		return ret;
	vph_parameter_tell(ch->def, index);
	return 0;
}

/* All or none. The device is open. */
int vph_parameters_set(struct vph_channel *ch, char (*values)[VFIO_PCI_HOOKS_VALUE_LEN])
{
	const struct vph_definition *def = ch->def;
	unsigned long changed = 0;
	unsigned int i;

	for (i = 0; i < def->nr_parameters; i++)
		if (!vph_takes_text(&def->parameters[i], values[i]))
			return -EINVAL;

	mutex_lock(&ch->lock);
	/* Closed meanwhile: from now on values are root's again. */
	if (!ch->hdev) {
		mutex_unlock(&ch->lock);
		return -ESHUTDOWN;
	}
	for (i = 0; i < def->nr_parameters; i++) {
		if (!strcmp(ch->values[i], values[i]))
			continue;
		memset(ch->values[i], 0, sizeof(ch->values[i]));
		strscpy(ch->values[i], values[i], sizeof(ch->values[i]));
		__set_bit(i, &changed);
	}
	mutex_unlock(&ch->lock);

	for_each_set_bit(i, &changed, def->nr_parameters)
		vph_parameter_tell(def, i);
	return 0;
}

/* -------------------------------------------------------------------- ioctls */

long vph_parameters_get_user(struct vph_channel *ch, void __user *arg)
{
	char (*copy)[VFIO_PCI_HOOKS_VALUE_LEN] __free(kfree) = NULL;
	struct vfio_pci_hooks_parameters parameters;
	size_t size = 0;
	u32 argsz;
	int ret;

	ret = vph_copy_in(&parameters, sizeof(parameters), arg);
	if (ret)
		return ret;
	if (parameters.flags || parameters.reserved)
		return -EINVAL;
	if (READ_ONCE(ch->gone))
		return -ENODEV;

	size = array_size(min(parameters.nr, ch->def->nr_parameters), sizeof(*copy));
	if (size) {
		copy = kmalloc(size, GFP_KERNEL_ACCOUNT);
		if (!copy)
			return -ENOMEM;
		scoped_guard(mutex, &ch->lock)
			memcpy(copy, ch->values, size);
		if (copy_to_user(u64_to_user_ptr(parameters.values), copy, size))
			return -EFAULT;
	}
	argsz = parameters.argsz;
	parameters.argsz = sizeof(parameters);
	parameters.nr = ch->def->nr_parameters;
	return vph_copy_out(arg, &parameters, sizeof(parameters), argsz);
}

long vph_parameters_set_user(struct vph_session *session, void __user *arg)
{
	char (*values)[VFIO_PCI_HOOKS_VALUE_LEN] __free(kfree) = NULL;
	const struct vph_definition *def = session->channel->def;
	struct vfio_pci_hooks_parameters parameters;
	int ret;

	ret = vph_copy_in(&parameters, sizeof(parameters), arg);
	if (ret)
		return ret;
	if (parameters.flags || parameters.reserved || parameters.nr != def->nr_parameters)
		return -EINVAL;
	if (parameters.nr) {
		values = kcalloc(parameters.nr, sizeof(*values), GFP_KERNEL_ACCOUNT);
		if (!values)
			return -ENOMEM;
		if (copy_from_user(values, u64_to_user_ptr(parameters.values),
				   array_size(parameters.nr, sizeof(*values))))
			return -EFAULT;
	}

	ret = vph_session_enter(session);
	if (ret)
		return ret;
	ret = vph_migration_set_parameters(session->hdev, values);
	vph_session_leave(session);
	return ret;
}

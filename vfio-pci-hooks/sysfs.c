// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files of a device that can migrate: migration_version, and the folder migration/
 * with its model and a folder for each parameter. Documentation/ABI describes them.
 *
 * They are there from probe to the beginning of remove, and in between the driver's
 * data is the device. No file keeps anything of its own.
 */
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/kobject.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "vfio_pci_hooks_priv.h"

/* What is in a file may end with a newline; nothing else of it is taken away. */
static size_t vph_line_length(const char *buf, size_t count)
{
	return count && buf[count - 1] == '\n' ? count - 1 : count;
}

/* ------------------------------------------------------------ migration_version */

#define VPH_REASON_LENGTH	768	/* as much of it as a line of the log has room for */

/* Of writes only, which are root's: what anybody can repeat would use up the limit. */
static void vph_log_refusal(struct vph_device *hdev, struct vph_query *query)
{
	u32 i;

	for (i = 0; i < query->length; i++)
		if (!vph_is_printable(&query->text[i], 1))
			query->text[i] = query->text[i] == '\n' ? ' ' : '?';
	pci_notice_ratelimited(hdev->core.pdev, "migration_version refused: %.*s (%d)\n",
			       min_t(int, query->length, VPH_REASON_LENGTH), query->text,
			       query->answer);
}

static ssize_t migration_version_show(struct device *dev, struct device_attribute *attr,
				      char *buf)
{
	struct vph_device *hdev = vph_drvdata(dev);
	struct vph_query *query __free(kfree) = kzalloc(sizeof(*query), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!query)
		return -ENOMEM;
	query->what = VFIO_PCI_HOOKS_QUERY_READ;
	ret = vph_query_ask(hdev->channel, query);
	if (ret)
		return ret;
	if (query->answer)
		return query->answer;
	/* With a newline, unless the longest text fills the page. */
	return sysfs_emit(buf, "%s\n", query->text);
}

static ssize_t migration_version_store(struct device *dev, struct device_attribute *attr,
				       const char *buf, size_t count)
{
	struct vph_device *hdev = vph_drvdata(dev);
	struct vph_query *query __free(kfree) = NULL;
	size_t length = vph_line_length(buf, count);
	int ret;

	/* A full page may be the beginning of something longer. */
	if (count >= VFIO_PCI_HOOKS_VERSION_LEN)
		return -E2BIG;
	if (!length || !vph_is_printable(buf, length))
		return -EINVAL;
	query = kzalloc(sizeof(*query), GFP_KERNEL_ACCOUNT);
	if (!query)
		return -ENOMEM;
	query->what = VFIO_PCI_HOOKS_QUERY_WRITE;
	query->length = length;
	memcpy(query->text, buf, length);
	ret = vph_query_ask(hdev->channel, query);
	if (ret)
		return ret;
	if (query->answer) {
		vph_log_refusal(hdev, query);
		return query->answer;
	}
	return count;
}
static DEVICE_ATTR_RW(migration_version);

/* ------------------------------------------------------------------- migration/ */

static ssize_t model_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct vph_device *hdev = vph_drvdata(kobj_to_dev(kobj->parent));

	return sysfs_emit(buf, "%s\n", hdev->def->model);
}
static struct kobj_attribute vph_attr_model = __ATTR_RO(model);

static struct vph_device *vph_parameter_device(struct kobject *kobj, unsigned int *index)
{
	struct vph_device *hdev = vph_drvdata(kobj_to_dev(kobj->parent->parent));
	unsigned int i;

	for (i = 0; i < hdev->def->nr_parameters - 1; i++)
		if (!strcmp(hdev->def->parameters[i].name, kobject_name(kobj)))
			break;
	*index = i;
	return hdev;
}

static ssize_t value_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	char value[VFIO_PCI_HOOKS_VALUE_LEN];
	struct vph_device *hdev;
	unsigned int index;

	hdev = vph_parameter_device(kobj, &index);
	vph_parameter_read(hdev->channel, index, value);
	return sysfs_emit(buf, "%s\n", value);
}

static ssize_t value_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf,
			   size_t count)
{
	struct vph_device *hdev;
	unsigned int index;
	int ret;

	hdev = vph_parameter_device(kobj, &index);
	ret = vph_parameter_write(hdev->channel, index, buf, vph_line_length(buf, count));
	return ret ?: count;
}
static struct kobj_attribute vph_attr_value = __ATTR_RW(value);

#define VPH_PARAMETER_TEXT(member)							\
static ssize_t member##_show(struct kobject *kobj, struct kobj_attribute *attr,	\
			     char *buf)							\
{											\
	struct vph_device *hdev;							\
	unsigned int index;								\
											\
	hdev = vph_parameter_device(kobj, &index);					\
	return sysfs_emit(buf, "%s\n", hdev->def->parameters[index].member);		\
}											\
static struct kobj_attribute vph_attr_##member = __ATTR_RO(member)

VPH_PARAMETER_TEXT(init_value);
VPH_PARAMETER_TEXT(off_value);
VPH_PARAMETER_TEXT(allowed_values);
VPH_PARAMETER_TEXT(description);

static struct attribute *vph_parameter_attrs[] = {
	&vph_attr_value.attr,
	&vph_attr_init_value.attr,
	&vph_attr_off_value.attr,
	&vph_attr_allowed_values.attr,
	&vph_attr_description.attr,
	NULL
};
static const struct attribute_group vph_parameter_group = { .attrs = vph_parameter_attrs };

/* -------------------------------------------------------------------- life cycle */

static int vph_sysfs_add_parameter(struct vph_device *hdev, unsigned int index)
{
	struct kobject *kobj;

	kobj = kobject_create_and_add(hdev->def->parameters[index].name, hdev->migration_kobj);
	if (!kobj)
		return -ENOMEM;
	hdev->parameter_kobj[index] = kobj;
	return sysfs_create_group(kobj, &vph_parameter_group);
}

static int vph_sysfs_add_all(struct vph_device *hdev)
{
	struct kobject *parent = &hdev->core.pdev->dev.kobj;
	unsigned int i;
	int ret;

	hdev->migration_kobj = kobject_create_and_add("migration", parent);
	if (!hdev->migration_kobj)
		return -ENOMEM;
	ret = sysfs_create_file(hdev->migration_kobj, &vph_attr_model.attr);
	for (i = 0; !ret && i < hdev->def->nr_parameters; i++)
		ret = vph_sysfs_add_parameter(hdev, i);
	if (!ret)
		ret = sysfs_create_file(parent, &dev_attr_migration_version.attr);
	return ret;
}

int vph_sysfs_add(struct vph_device *hdev)
{
	int ret;

	if (!hdev->def->model[0])
		return 0;
	ret = vph_sysfs_add_all(hdev);
	if (ret)
		vph_sysfs_remove(hdev);
	return ret;
}

/* Waits for whoever reads or writes a file, and for that ends the queries first. */
void vph_sysfs_remove(struct vph_device *hdev)
{
	unsigned int i;

	if (!hdev->migration_kobj)
		return;
	vph_queries_close(hdev->channel);
	sysfs_remove_file(&hdev->core.pdev->dev.kobj, &dev_attr_migration_version.attr);
	/* To delete waits for readers; the last put may do so too late. */
	for (i = 0; i < hdev->def->nr_parameters; i++) {
		kobject_del(hdev->parameter_kobj[i]);
		kobject_put(hdev->parameter_kobj[i]);
	}
	kobject_del(hdev->migration_kobj);
	kobject_put(hdev->migration_kobj);
	hdev->migration_kobj = NULL;
}

/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vfio_pci_hooks

#if !defined(VFIO_PCI_HOOKS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VFIO_PCI_HOOKS_TRACE_H

#include <linux/pci.h>
#include <linux/tracepoint.h>

TRACE_EVENT(access,
	TP_PROTO(struct pci_dev *pdev, const char *handler, bool write, u32 region, u64 offset,
		 u32 length, u64 value, int answer),
	TP_ARGS(pdev, handler, write, region, offset, length, value, answer),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__string(handler, handler)
		__field(bool, write)
		__field(u32, region)
		__field(u64, offset)
		__field(u32, length)
		__field(u64, value)
		__field(int, answer)
	),
	TP_fast_assign(
		__assign_str(device);
		__assign_str(handler);
		__entry->write = write;
		__entry->region = region;
		__entry->offset = offset;
		__entry->length = length;
		__entry->value = value;
		__entry->answer = answer;
	),
	TP_printk("%s %s %s region %u offset 0x%llx length %u value 0x%llx answer %d",
		  __get_str(device), __get_str(handler), __entry->write ? "write" : "read",
		  __entry->region, __entry->offset, __entry->length, __entry->value,
		  __entry->answer)
);

TRACE_EVENT(call,
	TP_PROTO(struct pci_dev *pdev, const char *handler, bool feature, u32 number, u32 length,
		 int answer),
	TP_ARGS(pdev, handler, feature, number, length, answer),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__string(handler, handler)
		__field(bool, feature)
		__field(u32, number)
		__field(u32, length)
		__field(int, answer)
	),
	TP_fast_assign(
		__assign_str(device);
		__assign_str(handler);
		__entry->feature = feature;
		__entry->number = number;
		__entry->length = length;
		__entry->answer = answer;
	),
	TP_printk("%s %s %s 0x%x length %u answer %d", __get_str(device), __get_str(handler),
		  __entry->feature ? "feature" : "ioctl", __entry->number, __entry->length,
		  __entry->answer)
);

TRACE_EVENT(state,
	TP_PROTO(struct pci_dev *pdev, u32 from, u32 to, int ret, s64 us),
	TP_ARGS(pdev, from, to, ret, us),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__field(u32, from)
		__field(u32, to)
		__field(int, ret)
		__field(s64, us)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->from = from;
		__entry->to = to;
		__entry->ret = ret;
		__entry->us = us;
	),
	TP_printk("%s %u -> %u: %d, %lld us", __get_str(device), __entry->from, __entry->to,
		  __entry->ret, __entry->us)
);

TRACE_EVENT(data,
	TP_PROTO(struct pci_dev *pdev, bool load, ssize_t ret, s64 us),
	TP_ARGS(pdev, load, ret, us),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__field(bool, load)
		__field(ssize_t, ret)
		__field(s64, us)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->load = load;
		__entry->ret = ret;
		__entry->us = us;
	),
	TP_printk("%s %s %zd, %lld us", __get_str(device), __entry->load ? "load" : "save",
		  __entry->ret, __entry->us)
);

TRACE_EVENT(request,
	TP_PROTO(struct pci_dev *pdev, u32 op, u32 flags, u32 seq, s32 answer, int error),
	TP_ARGS(pdev, op, flags, seq, answer, error),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__field(u32, op)
		__field(u32, flags)
		__field(u32, seq)
		__field(s32, answer)
		__field(int, error)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->op = op;
		__entry->flags = flags;
		__entry->seq = seq;
		__entry->answer = answer;
		__entry->error = error;
	),
	TP_printk("%s op %u flags 0x%x seq %u answer %d error %d", __get_str(device), __entry->op,
		  __entry->flags, __entry->seq, __entry->answer, __entry->error)
);

TRACE_EVENT(revoke,
	TP_PROTO(struct pci_dev *pdev, int error),
	TP_ARGS(pdev, error),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__field(int, error)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->error = error;
	),
	TP_printk("%s session ended: %d", __get_str(device), __entry->error)
);

TRACE_EVENT(query,
	TP_PROTO(struct pci_dev *pdev, u32 what, u64 id, int answer, int error),
	TP_ARGS(pdev, what, id, answer, error),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__field(u32, what)
		__field(u64, id)
		__field(int, answer)
		__field(int, error)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->what = what;
		__entry->id = id;
		__entry->answer = answer;
		__entry->error = error;
	),
	TP_printk("%s %s id %llu answer %d error %d", __get_str(device),
		  __print_symbolic(__entry->what,
				   { VFIO_PCI_HOOKS_QUERY_READ, "read" },
				   { VFIO_PCI_HOOKS_QUERY_WRITE, "write" }),
		  __entry->id, __entry->answer, __entry->error)
);

TRACE_EVENT(program,
	TP_PROTO(struct pci_dev *pdev, const char *what, unsigned int steps, int ret),
	TP_ARGS(pdev, what, steps, ret),
	TP_STRUCT__entry(
		__string(device, pci_name(pdev))
		__string(what, what)
		__field(unsigned int, steps)
		__field(int, ret)
	),
	TP_fast_assign(
		__assign_str(device);
		__assign_str(what);
		__entry->steps = steps;
		__entry->ret = ret;
	),
	TP_printk("%s %s: %u steps: %d", __get_str(device), __get_str(what), __entry->steps,
		  __entry->ret)
);

#endif /* VFIO_PCI_HOOKS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a pod's policy says of one destination. */
#ifndef SIDETRACK_BPF_RULES_H
#define SIDETRACK_BPF_RULES_H

#include "lib/common.h"

static __always_inline int st_port_in_set(__u32 set_id, __u32 port)
{
	struct st_port_page_key key = {.set_id = set_id,
				       .page = (port & 0xffff) / ST_PORTS_PER_PAGE};
	struct st_port_page *page;
	__u32 bit = port % ST_PORTS_PER_PAGE;

	if (set_id == ST_PORT_SET_NONE)
		return 0;
	if (set_id == ST_PORT_SET_ALL)
		return 1;
	page = bpf_map_lookup_elem(&st_port_pages, &key);
	return page && (page->bits[bit / 64] >> (bit % 64)) & 1;
}

/* `rules` is zero before. */
static __always_inline void st_find_rules(const struct st_pod *pod,
					  const struct st_addr *destination, __u32 port,
					  struct st_rules *rules)
{
	struct st_cidr_key key = {};
	__u32 policy_id = pod->policy_id;
	struct st_policy *policy;
	struct st_cidr *cidr;

	if (!policy_id)
		return;
	policy = bpf_map_lookup_elem(&st_policies, &policy_id);
	if (!policy) {
		/* Never seen: rows outlive the pods that name them. What was to be excluded is not
		 * captured. */
		rules->excluded_cidr = 1;
		return;
	}
	rules->has_include = policy->has_include;
	rules->excluded_port = st_port_in_set(policy->exclude_ports, port);
	if (!rules->excluded_port && policy->has_cidrs) {
		/* Not in the initialiser: 5.10 refuses the BTF of constants without a name. */
		key.prefix_bits = 32 + 128;
		key.policy_id = policy_id;
		key.addr = *destination;
		cidr = bpf_map_lookup_elem(&st_cidrs, &key);
		if (cidr) {
			rules->excluded_cidr = st_port_in_set(cidr->exclude_ports, port);
			rules->included = st_port_in_set(cidr->include_ports, port);
		}
	}
	if (rules->has_include && !rules->included)
		rules->included = st_port_in_set(policy->include_ports, port);
}

#endif

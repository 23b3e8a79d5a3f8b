//go:build linux

package engine

// The compiler is pinned: another one makes other bytes, and CI compares them.
// `make generate` sets BPF2GO_CC, BPF2GO_STRIP and BPF2GO_CFLAGS.
//
//go:generate go tool -modfile=../../tools.mod bpf2go -tags linux -target bpfel -go-package engine -output-stem kernel -no-global-types -type wb_policy -type wb_provider -type wb_filter -type wb_endpoint -type wb_policy_flags -type wb_filter_flags -type wb_action -type wb_layer -type wb_verdict -type wb_set -type wb_class_key -type wb_dimension -type wb_process -type wb_event -type wb_event_kind -type wb_outcome -type wb_end -type wb_links -type wb_kinship -type wb_provider_flags -type wb_listener -type wb_peer -type wb_peer_key -type wb_peer_flags -type wb_peers -type wb_destination_key -type wb_candidate_key -type wb_queue -type wb_meta -type wb_on_down -type wb_context -type wb_context_key -type wb_key -type wb_records -type wb_hop -type wb_hop_flags -type wb_socket -type wb_role -type wb_flow -type wb_flight_key -type wb_counter -type wb_provider_counter -type wb_provider_counts -type wb_source_key -type wb_source -type wb_source_kind kernel ../../bpf/waybill.bpf.c
//go:generate go tool -modfile=../../tools.mod bpf2go -tags linux -target bpfel -go-package engine -output-stem twin -output-suffix _test -no-global-types -type wb_case -type wb_query -type wb_subject -type wb_endpoint -type wb_seal_input twin ../../bpf/twin.bpf.c

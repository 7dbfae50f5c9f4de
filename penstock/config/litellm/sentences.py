"""What is said of LiteLLM's settings for which Penstock has no option of the same meaning.

A name that is in no table here is told to be unknown: nothing is dropped in silence. The names are those of
https://docs.litellm.ai/docs/proxy/config_settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.config.litellm.source import Outcome

Told = tuple[Outcome, str]

_LIMITS: Final = (
    "a deployment has no limit of its own; for all that callers ask of a model write under `limits` "
    "`NAME: { requests: 600/m, per: all, where: { model: MODEL } }`, or tokens: or concurrent_requests:"
)
_BUDGET: Final = (
    "budgets are for callers: write under `budgets` `NAME: { amount: $100, every: month, per: key }`, or `per: all` "
    "with `where: { model: MODEL }`"
)
_PRICES: Final = "it is no part of a `price`: see docs/prices.md"
_BASE: Final = "for its price write `price: { like: PROVIDER/MODEL }`; `penstock prices show` lists the names"
LOGS: Final = "nothing is sent there yet: there is one JSON line per request (`server.access_log`) and `GET /metrics`"
_DATABASE: Final = (
    "Penstock has a database of its own (`store.database`), and keys may be in the file: see docs/migrate-litellm.md "
    "for those of LiteLLM's"
)
_UI: Final = "Penstock has no such page"
_GUARD: Final = "there are no guardrails yet: keep this check in the application, or in front of Penstock"
_CACHE: Final = "there is no cache of answers yet; engines and providers keep their own caches of prompts"
_DEFAULTS: Final = "Penstock never changes a request: let callers send it"
_HEADERS: Final = "Penstock sends no headers of its own choice to an upstream yet"
_TAGS: Final = "there is no routing by tags: give each group of callers a model name of its own, and keys for it"
_REDIS: Final = (
    "the workers of one host need no Redis; for limits that several hosts share write `store: { counters: "
    "env:REDIS_URL }`, with the whole address there"
)
_ALERTS: Final = "Penstock sends no alerts: write alert rules on `GET /metrics`"
_RULES: Final = "which failures are tried again, and which count against a replica, is a fixed table, the same for all"
_HEALTH: Final = "engines are probed every 2 s, always (`health`); providers are judged by the answers to real requests"
_LOGIN: Final = "callers are known by their keys only (`keys`)"
_TLS: Final = "certificates of upstreams are always checked, against the system's own list"
_NEVER: Final = "needed no longer: Penstock writes no prompts, answers or keys into any log"
_VERBOSE: Final = "there is no such switch: the access log always says what became of a request"
_TRANSFORM: Final = "translation between dialects has no such switch"
_BODY: Final = "Penstock adds no fields to a request: let callers send it"
_PASS: Final = "only the endpoints that Penstock knows are served"
_MCP: Final = "Penstock does not speak MCP"


def _table(*rows: Mapping[str, Told]) -> dict[str, Told]:
    return {name: told for row in rows for name, told in row.items()}


def _mapped(names: str, sentence: str) -> dict[str, Told]:
    return dict.fromkeys(names.split(), ("mapped", sentence))


def _approximated(names: str, sentence: str) -> dict[str, Told]:
    return dict.fromkeys(names.split(), ("approximated", sentence))


def _unsupported(names: str, sentence: str) -> dict[str, Told]:
    return dict.fromkeys(names.split(), ("unsupported", sentence))


_SAME_IN_BOTH: Final = _table(
    _unsupported(
        "content_policy_fallbacks",
        "a refusal for its content is the answer: the caller gets it, with the code `content_policy_violation`",
    ),
    _unsupported(
        "context_window_fallbacks",
        "a prompt that is too long is the caller's to shorten: the answer is `context_length_exceeded`; name "
        "the larger model in the request",
    ),
)
TOP_LEVEL: Final = _table(
    _unsupported("guardrails", _GUARD),
    _unsupported("prompts", "Penstock keeps no prompts: send them in the request"),
    _unsupported("callback_settings", LOGS),
    _unsupported("mcp_servers mcp_tools", _MCP),
    _unsupported("vector_store_registry", "Penstock has no vector stores"),
    _unsupported("files_settings", "there is no files API yet"),
    _unsupported("finetune_settings", "there is no fine-tuning API"),
    _unsupported("assistant_settings", "there is no assistants API; `/v1/responses` is its successor"),
    _unsupported("search_tools", "Penstock has no tools of its own"),
    _unsupported("include", "one file is read here: run the command for each included file and join the results"),
    _unsupported(
        "default_vertex_config", "it is for pass-through routes, and only the endpoints that Penstock knows are served"
    ),
)
LITELLM_SETTINGS: Final = _SAME_IN_BOTH | _table(
    _unsupported("max_user_budget max_internal_user_budget", _BUDGET),
    _unsupported(
        "cache cache_params enable_redis_auth_cache enable_caching_on_provider_specific_optional_params", _CACHE
    ),
    _unsupported(
        """
        success_callback failure_callback service_callback langfuse_default_tags audit_log_callbacks
        s3_callback_params gcs_pub_sub_use_v1 datadog_params otel
        """,
        LOGS,
    ),
    _unsupported(
        """
        guardrails post_call_rules pre_call_rules banned_keywords_list blocked_user_list llm_guard_mode
        presidio_ad_hoc_recognizers guardrail_name_config_map google_moderation_confidence_threshold
        """,
        _GUARD,
    ),
    _mapped(
        "turn_off_message_logging redact_user_api_key_info redact_messages_in_exceptions suppress_debug_info", _NEVER
    ),
    _unsupported("set_verbose detailed_debug log_raw_request_response", _VERBOSE),
    _unsupported("ssl_verify ssl_certificate ssl_security_level ssl_ecdh_curve", _TLS),
    _unsupported(
        """
        modify_params enable_preview_features disable_add_transform_inline_image_block
        use_chat_completions_url_for_anthropic_messages convert_max_completion_tokens
        disable_copilot_system_to_assistant merge_reasoning_content_in_choices disable_add_prefix_to_prompt
        """,
        _TRANSFORM,
    ),
    _unsupported(
        """
        default_internal_user_params default_team_settings upperbound_key_generate_params
        key_generation_settings default_user_params enable_key_alias_format_validation
        enable_end_user_cost_tracking_prometheus_only disable_end_user_cost_tracking
        disable_end_user_cost_tracking_prometheus_only max_end_user_budget_id
        internal_user_budget_duration
        """,
        _DATABASE,
    ),
    _unsupported("mcp_aliases", _MCP),
    _unsupported(
        """
        tag_budget_config custom_prometheus_metadata_labels prometheus_metrics_config
        prometheus_initialize_budget_metrics custom_prometheus_tags enable_metrics_auth
        require_auth_for_metrics_endpoint
        """,
        "`GET /metrics` has fixed metrics, listed in docs/metrics.md",
    ),
    _unsupported("extra_spend_tag_headers cost_discount_config cost_margin_config model_cost_map_url", _PRICES),
    _unsupported("force_ipv4", "addresses are tried as the resolver orders them"),
    _mapped("json_logs", "every line of the access log is JSON"),
    _unsupported("aiohttp_trust_env", "proxies of the environment are not used"),
    _unsupported("enable_json_schema_validation", "answers are passed on as they come"),
    _unsupported("add_function_to_prompt", _DEFAULTS),
    _mapped("telemetry", "needed no longer: Penstock sends nothing to anybody"),
    _unsupported(
        "key_management_system", "secrets are read from the environment or from files: `env:NAME`, `file:/path`"
    ),
    _mapped("disable_hf_tokenizer_download", "needed no longer: Penstock downloads nothing"),
    _unsupported("forward_traceparent_to_llm_provider headers organization", _HEADERS),
    _unsupported("request_timeout_policy", _RULES),
)
ROUTER_SETTINGS: Final = _SAME_IN_BOTH | _table(
    _unsupported("redis_host redis_password redis_port redis_url redis_db cache_kwargs startup_nodes", _REDIS),
    _unsupported("cache_responses caching_groups client_ttl", _CACHE),
    _unsupported("enable_tag_filtering tag_filtering_match_any enable_tag_routing", _TAGS),
    _unsupported("retry_policy model_group_retry_policy allowed_fails_policy", _RULES),
    _unsupported("set_verbose debug_level", _VERBOSE),
    _unsupported("alerting_config router_general_settings", _ALERTS),
    _unsupported("default_litellm_params", _DEFAULTS),
    _unsupported("provider_budget_config", _BUDGET),
    _unsupported(
        """
        default_max_parallel_requests default_priority polling_interval model_group_affinity_config
        deployment_affinity_ttl_seconds
        """,
        _LIMITS,
    ),
    _unsupported(
        "enable_pre_call_checks",
        "prompts are not compared with a model's context before they are sent; the upstream says when one is too long",
    ),
    _unsupported(
        "routing_strategy_args",
        "`deployments.*.balancing` has a policy and its options, which are not these",
    ),
    _approximated(
        "optional_pre_call_checks", "replicas that have a prompt's beginning in their cache are preferred, always"
    ),
    _approximated(
        "retry_after", "waits between attempts grow from 50 ms with jitter, and follow the upstream's Retry-After"
    ),
    _approximated("max_fallbacks", "`max_attempts` counts all attempts, at most 10"),
    _unsupported("assistants_config", "there is no assistants API"),
    _unsupported("search_tools", "Penstock has no tools of its own"),
    _unsupported("guardrail_list", _GUARD),
    _unsupported("ignore_invalid_deployments", "a file with a mistake in it is never used, not even in part"),
)
GENERAL_SETTINGS: Final = _table(
    _unsupported(
        """
        database_url database_connection_pool_limit database_connection_timeout database_connection_pool_timeout
        database_type database_args store_model_in_db supported_db_objects store_prompts_in_spend_logs
        disable_spend_logs disable_spend_updates disable_error_logs disable_adding_master_key_hash_to_db
        disable_master_key_return disable_reset_budget disable_prisma_schema_update proxy_batch_write_at
        proxy_batch_polling_interval proxy_budget_rescheduler_min_time proxy_budget_rescheduler_max_time
        maximum_spend_logs_retention_period maximum_spend_logs_retention_interval allow_requests_on_db_unavailable
        user_api_key_cache_ttl use_redis_transaction_buffer use_shared_health_check virtual_key_event_hooks
        store_in_memory control_plane_url spend_report_frequency
        """,
        _DATABASE,
    ),
    _unsupported(
        """
        alerting alerting_threshold alert_types alert_to_webhook_url alerting_args alert_type_config
        enable_slack_alerting
        """,
        _ALERTS,
    ),
    _approximated(
        """
        background_health_checks health_check_interval health_check_details health_check_concurrency
        health_check_staleness_threshold enable_health_check_routing allowed_fails_policy
        maximum_health_check_timeout
        """,
        _HEALTH,
    ),
    _unsupported(
        """
        enable_jwt_auth litellm_jwtauth custom_auth custom_sso custom_ui_sso_sign_in_handler enable_oauth2_auth
        enable_oauth2_proxy_auth oauth2_config_mappings litellm_key_header_name custom_auth_run_common_checks
        custom_auth_settings allowed_routes admin_only_routes public_routes proxy_admin_email role_permissions
        enforce_user_param user_header_name user_header_mappings enforced_params token_rate_limit_type
        custom_key_generate custom_key_update allow_user_auth infer_model_from_keys service_account_settings
        use_google_kms use_azure_key_vault allowed_ips trusted_proxy_ranges use_x_forwarded_for
        mcp_trusted_proxy_ranges
        """,
        _LOGIN,
    ),
    _unsupported("max_parallel_requests disable_retry_on_max_parallel_request_limit_error", _LIMITS),
    _unsupported(
        """
        ui_access_mode disable_show_usage_logs ui_username ui_password enable_public_model_hub public_model_groups
        enable_projects_ui
        """,
        _UI,
    ),
    _unsupported(
        """
        forward_client_headers_to_llm_api forward_openai_org_id forward_llm_provider_auth_headers
        add_user_information_to_llm_headers
        """,
        _HEADERS,
    ),
    _unsupported(
        """
        pass_through_endpoints use_client_credentials_pass_through_routes disable_llm_api_endpoints
        custom_root_path
        """,
        _PASS,
    ),
    _unsupported("user_mcp_management_mode mcp_client_side_auth_header_name mcp_internal_ip_ranges", _MCP),
    _unsupported(
        "key_management_system key_management_settings",
        "secrets are read from the environment or from files: `env:NAME`, `file:/path`",
    ),
    _unsupported("embedding_model image_generation_model completion_model moderation_model", _DEFAULTS),
    _mapped(
        "allow_client_side_credentials allow_client_side_api_base",
        "callers can never choose an upstream's address or key",
    ),
    _mapped("reject_clientside_metadata_tags", "callers' metadata decide nothing here"),
    _unsupported("max_response_size_mb", "an answer that is not streamed may have 64 MiB, always"),
    _unsupported(
        "always_include_stream_usage",
        "usage is counted for every stream; callers who want to see it ask with `stream_options`",
    ),
    _unsupported("disable_responses_id_security", "a stored response belongs to the key that made it, always"),
)
LITELLM_PARAMS: Final = _table(
    _unsupported("api_version", "only Azure's API has versions"),
    _unsupported("region_name", "where it is follows from the address"),
    _unsupported("rpm tpm max_parallel_requests", _LIMITS),
    _unsupported("max_budget budget_duration", _BUDGET),
    _unsupported(
        """
        input_cost_per_second output_cost_per_second input_cost_per_character output_cost_per_character
        """,
        _PRICES,
    ),
    _unsupported("base_model", _BASE),
    _unsupported("extra_headers headers organization", _HEADERS),
    _unsupported("extra_body prompt_id prompt_variables", _BODY),
    _unsupported("tags", _TAGS),
    _unsupported("guardrails", _GUARD),
    _unsupported("ssl_verify ssl_certificate", _TLS),
    _unsupported(
        """
        temperature top_p top_k max_tokens max_completion_tokens seed stop n presence_penalty frequency_penalty
        reasoning_effort thinking response_format stream keep_alive num_ctx dimensions encoding_format input_type
        verbosity service_tier safety_settings cache_control_injection_points web_search_options
        allowed_openai_params
        """,
        _DEFAULTS,
    ),
    _unsupported("merge_reasoning_content_in_choices hf_model_name supports_system_message modify_params", _TRANSFORM),
    _unsupported("use_in_pass_through use_litellm_proxy", _PASS),
    _unsupported(
        "azure_ad_token tenant_id client_id client_secret azure_username azure_password azure_scope",
        "Azure is asked with a key only (`key`), not with an Entra ID token",
    ),
    _unsupported(
        """
        aws_profile_name aws_role_name aws_session_name aws_session_token aws_web_identity_token aws_sts_endpoint
        aws_external_id
        """,
        "AWS's credentials are found where its own tools find them (AWS_PROFILE, AWS_ROLE_ARN, ...), the same "
        "for all deployments; or write a Bedrock API key under `key`",
    ),
    _unsupported(
        "weight",
        "replicas are chosen by their load, and deployments in their order: put the one that should get most first",
    ),
    _unsupported("configurable_clientside_auth_params", "callers can never choose an upstream's address or key"),
    _unsupported("mock_response", "there are no scripted answers"),
    _unsupported("caching", _CACHE),
    _approximated("max_file_size_mb", "`server.max_body` limits every request"),
)
MODEL_INFO: Final = _table(
    _unsupported("base_model", _BASE),
    _unsupported(
        """
        input_cost_per_second output_cost_per_second input_cost_per_character output_cost_per_character
        input_cost_per_pixel
        """,
        _PRICES,
    ),
    _unsupported(
        "access_groups team_id team_public_model_name access_via_team_ids",
        "name the models that a key may use under its `models`",
    ),
    _unsupported(
        "max_tokens max_input_tokens max_output_tokens",
        "prompts are not compared with a model's context before they are sent",
    ),
    _approximated("health_check_model health_check_timeout disable_background_health_check", _HEALTH),
    _mapped(
        """
        supports_vision supports_function_calling supports_tool_choice supports_response_schema
        supports_prompt_caching supports_reasoning supports_web_search supports_audio_input litellm_provider
        output_vector_size description
        """,
        "needed no longer: requests are sent as they are, and the upstream says what it cannot do",
    ),
    _mapped("mode", "needed no longer: the endpoint that the caller asks is the one that the upstream is asked"),
    _mapped("version", "a remark"),
)
STRATEGIES: Final = _table(
    _approximated(
        "simple-shuffle least-busy",
        "replicas of one deployment share the load by tokens in flight; deployments are tried in their order",
    ),
    _unsupported(
        "latency-based-routing",
        "latency decides nothing yet: replicas share the load by tokens in flight, deployments are tried in "
        "their order",
    ),
    _unsupported("usage-based-routing usage-based-routing-v2", _LIMITS),
    _unsupported("cost-based-routing", "put the cheapest deployment first"),
)

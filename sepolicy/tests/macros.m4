dnl SPDX-License-Identifier: Apache-2.0
dnl The macros of AOSP's policy that ours and the stub use, as far as they are needed, in our own words.
define(`r_file_perms', `{ getattr open read ioctl lock map watch watch_reads }')dnl
define(`w_file_perms', `{ open append write lock map }')dnl
define(`x_file_perms', `{ getattr execute execute_no_trans map }')dnl
define(`rx_file_perms', `{ getattr open read ioctl lock map execute execute_no_trans }')dnl
define(`rw_file_perms', `{ getattr open read ioctl lock map append write watch watch_reads }')dnl
define(`r_dir_perms', `{ open getattr read search ioctl lock watch watch_reads }')dnl
define(`userdebug_or_eng', ifdef(`user_build', `', `$1'))dnl
define(`domain_trans', `
allow $1 $2:file { getattr open read execute map };
allow $1 $3:process transition;
allow $3 $2:file { entrypoint open read execute getattr map };
allow $3 $1:process sigchld;
dontaudit $1 $3:process noatsecure;
allow $1 $3:process { siginh rlimitinh };
')dnl
define(`domain_auto_trans', `
domain_trans($1, $2, $3)
type_transition $1 $2:process $3;
')dnl
define(`tmpfs_domain', `
type_transition $1 tmpfs:file $1_tmpfs;
allow $1 $1_tmpfs:file { read write getattr map };
')dnl
define(`set_prop', `allow $1 $2:property_service set;')dnl

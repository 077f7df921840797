"""What the daemons of the one-machine cluster read, to be filled in with its ports, paths and sizes."""

SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
CommunicationParameters=NoInAddrAny
SlurmUser={user}
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""

SLURM = """\
ClusterName=r2v
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ctld_port}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/%n.log
# no systemd, no cgroups, no devices
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=0,batch_sched_delay=0,defer_batch=0
# everything happens in seconds
KillWait=15
MinJobAge=30
SlurmdTimeout=30
SlurmdParameters=config_overrides
InactiveLimit=0
ReturnToService=2
JobRequeue=1
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStorageEnforce=associations,limits,qos
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu,gres/gpu:a100
AccountingStoreFlags=job_comment
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={cpu1_port} CPUs={cpus} RealMemory={memory} State=UNKNOWN
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu1_port} CPUs={cpus} RealMemory={memory} State=UNKNOWN \\
    Gres=gpu:a100:{gpus}
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=7-00:00:00 State=UP
PartitionName=gpu Nodes=gpu1 MaxTime=7-00:00:00 State=UP
PartitionName=all Nodes=cpu1,gpu1 MaxTime=7-00:00:00 State=UP
# its jobs take the place of the others'
PartitionName=urgent Nodes=cpu1 PriorityTier=10 MaxTime=7-00:00:00 State=UP
"""

SSHD = """\
ListenAddress 127.0.0.1
Port {ssh_port}
HostKey {root}/host_key
PidFile none
AuthorizedKeysFile {root}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
MaxSessions 100
SetEnv SLURM_CONF={root}/slurm.conf PATH={path} HOME={root}
"""

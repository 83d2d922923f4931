-- Change data capture: on for the database, then for each table, and read from the log every second.
USE pricing;
GO
IF (SELECT is_cdc_enabled FROM sys.databases WHERE database_id = DB_ID()) = 0
    EXEC sys.sp_cdc_enable_db;
GO
-- Who may read the changes is a member of cdc_reader, a role that the first call makes.
IF NOT EXISTS (SELECT 1 FROM cdc.change_tables WHERE capture_instance = N'dbo_supplier')
    EXEC sys.sp_cdc_enable_table
        @source_schema = N'dbo', @source_name = N'supplier',
        @role_name = N'cdc_reader', @supports_net_changes = 0;
IF NOT EXISTS (SELECT 1 FROM cdc.change_tables WHERE capture_instance = N'dbo_price_list')
    EXEC sys.sp_cdc_enable_table
        @source_schema = N'dbo', @source_name = N'price_list',
        @role_name = N'cdc_reader', @supports_net_changes = 0;
GO
-- Whether SQL Server Agent is running the job that reads the log.
CREATE OR ALTER VIEW dbo.capture_job AS
SELECT
    jobs.pollinginterval,
    CAST(CASE WHEN activity.job_id IS NULL THEN 0 ELSE 1 END AS bit) AS running
FROM msdb.dbo.cdc_jobs AS jobs
LEFT JOIN msdb.dbo.sysjobactivity AS activity
    ON activity.job_id = jobs.job_id
    AND activity.session_id = (SELECT MAX(session_id) FROM msdb.dbo.syssessions)
    AND activity.start_execution_date IS NOT NULL
    AND activity.stop_execution_date IS NULL
WHERE jobs.database_id = DB_ID() AND jobs.job_type = N'capture';
GO
CREATE OR ALTER PROCEDURE dbo.wait_for_capture_job @running bit, @seconds int = 60 AS
WHILE NOT EXISTS (SELECT 1 FROM dbo.capture_job WHERE running = @running)
BEGIN
    IF @seconds <= 0
        THROW 50001, N'the capture job does not start or stop: is SQL Server Agent running?', 1;
    SET @seconds -= 1;
    WAITFOR DELAY '00:00:01';
END;
GO
-- The job looks every 5 s unless told otherwise, and takes a new interval when it next starts.
EXEC dbo.wait_for_capture_job @running = 1;
IF EXISTS (SELECT 1 FROM dbo.capture_job WHERE pollinginterval <> 1)
BEGIN
    EXEC sys.sp_cdc_change_job @job_type = N'capture', @pollinginterval = 1;
    EXEC sys.sp_cdc_stop_job @job_type = N'capture';
    EXEC dbo.wait_for_capture_job @running = 0;
    EXEC sys.sp_cdc_start_job @job_type = N'capture';
    EXEC dbo.wait_for_capture_job @running = 1;
END;
GO
